"""The small parts: clock, certificate, events, garbage of history."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.simulator.certificate import make_certificate
from app.simulator.clock import ManualClock, Schedule, WorkQueue

START = datetime(2026, 3, 1, tzinfo=UTC)


def test_calls_are_made_at_their_time_in_order() -> None:
    schedule = Schedule(ManualClock(START))
    made: list[tuple[str, float]] = []

    def note(name: str) -> None:
        made.append((name, (schedule.clock.now() - START).total_seconds()))

    schedule.call_after(2, lambda: note("late"))
    schedule.call_after(1, lambda: (note("early"), schedule.call_after(0.5, lambda: note("child"))))
    schedule.call_after(2, lambda: note("later"))
    schedule.advance(1.2)
    assert made == [("early", 1.0)]
    schedule.advance(5)
    assert made[1:] == [("child", 1.5), ("late", 2.0), ("later", 2.0)]


def test_a_key_is_looked_at_once_for_all_that_asked() -> None:
    schedule = Schedule(ManualClock(START))
    seen: list[str] = []
    queue = WorkQueue(schedule, seen.append)
    queue.add("a", delay_seconds=10)
    queue.add("a")
    queue.add("a", delay_seconds=5)
    queue.add("b", delay_seconds=1)
    schedule.advance(20)
    assert seen == ["a", "b"]


def test_an_earlier_wish_is_told_to_who_waits() -> None:
    schedule = Schedule(ManualClock(START))
    told: list[int] = []
    schedule.on_earlier = lambda: told.append(1)
    for seconds in (5, 9, 2):
        schedule.call_after(seconds, lambda: None)
    assert len(told) == 2


def test_the_certificate_serves_tls_for_loopback_and_nothing_else(tmp_path: Path) -> None:
    made = make_certificate()
    chain, key = tmp_path / "crt", tmp_path / "key"
    chain.write_text(made.certificate)
    key.write_text(made.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    for host, fits in (("127.0.0.1", True), ("localhost", True), ("example.org", False)):
        client = ssl.create_default_context(cadata=made.certificate)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        assert handshake(client, server, host) == fits


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=host)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    for _ in range(10):
        for name, one in (("near", near), ("far", far)):
            try:
                one.do_handshake()
                done.add(name)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return done == {"near", "far"}


def test_events_count_up_and_go_after_an_hour(cluster) -> None:
    simulation = cluster.simulation
    node = cluster.node("h100-b01-r1-n1")
    for _ in range(3):
        simulation.recorder.record(node, "Odd", "something", component="test")
    found = [one for one in simulation.registry.objects("events") if one["reason"] == "Odd"]
    assert [one["count"] for one in found] == [3]
    assert found[0]["involvedObject"]["kind"] == "Node"
    cluster.advance(timedelta(hours=1, seconds=1).total_seconds())
    simulation.recorder.record(node, "Later", "else", component="test")
    reasons = {one["reason"] for one in simulation.registry.objects("events")}
    assert "Odd" not in reasons
