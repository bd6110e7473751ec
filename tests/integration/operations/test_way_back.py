"""A node's way back: repairs and their notes, the webhook against a real server, failed again, what a return asks."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from operation_world import CLUSTER, ENDED, Driver, World, world_of
from sqlalchemy import insert

from app.operations.lease import LeaseLost
from app.store.engine import read, write
from app.store.reads.repairs import reoffences, repairs
from app.store.reads.rows import table_of
from app.store.records import RepairRecord
from app.store.tables import Gpu, HealthEvent, NodeDiagnostic
from app.worker_repairs import RepairCalls
from app.worker_sync import ClusterSync

SECRET = b"known to both"


class Hook:
    """A webhook that answers as it is told, and keeps what it heard."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def listening() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.heard.append((dict(self.headers), body))
            status, headers = hook.answers.pop(0) if hook.answers else (204, {})
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/secret-path"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Way:
    """A world with a node that was drained, and what sends its repairs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.driver = Driver(world)
        self.sync = ClusterSync(
            world.engine, settings=world.settings, watcher=world.watcher, clock=world.clock
        )
        self.calls = self.new_calls()
        self.node = sorted(world.view().nodes)[0]
        self.run(self.world.drain(self.driver, self.node))
        self.look()

    def new_calls(self) -> RepairCalls:
        return RepairCalls(
            self.world.engine,
            settings=self.world.settings,
            lease=self.driver.lease,
            clock=self.world.clock,
        )

    def look(self) -> None:
        self.world.wait(lambda view: self.node in view.nodes)
        self.sync.tick()

    def run(self, operation_id: str) -> None:
        self.driver.run_until(lambda: self.world.state(operation_id) in ENDED)

    def say(self, kind: str, **parameters: Any) -> Any:
        return self.world.answer(self.driver, kind, nodes=[self.node], **parameters)

    def send(self) -> int:
        self.driver.lease.renew()
        return self.calls.tick()

    def repair(self) -> RepairRecord:
        return repairs(self.world.engine, CLUSTER, node=self.node)[0]


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as found:
        yield found


@pytest.fixture
def way(tmp_path: Path, hook: Hook) -> Iterator[Way]:
    address, secret = tmp_path / "url", tmp_path / "secret"
    address.write_text(hook.url + "\n")
    secret.write_bytes(SECRET + b"\n")
    with world_of(
        tmp_path, repair_webhook_url_file=address, repair_webhook_secret_file=secret
    ) as world:
        yield Way(world)


def test_a_repair_is_told_once_signed_and_with_what_is_to_be_done(way: Way, hook: Hook) -> None:
    with write(way.world.engine) as connection:
        gpu = Gpu(cluster=CLUSTER, uuid="GPU-1", node=way.node, index=0, serial="165")
        connection.execute(insert(table_of(Gpu)).values(**gpu.model_dump()))
    asked = way.say("repair", text="GPU 0 is lost", repair="replace")
    assert asked.state == "accepted", asked.refusal
    assert way.send() == 1
    ((headers, body),) = hook.heard
    signed = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    assert headers["X-Pitwall-Signature"] == signed
    said = json.loads(body)
    assert (said["node"], said["action"], said["note"]) == (way.node, "replace", "GPU 0 is lost")
    assert said["gpus"] == [{"uuid": "GPU-1", "serial": "165", "index": 0}]
    assert way.repair().call == "sent"
    assert way.send() == 0
    assert [one.id for one in repairs(way.world.engine, CLUSTER, gpu="165")] == [way.repair().id]
    assert repairs(way.world.engine, CLUSTER, gpu="GPU-2") == []


def test_a_repair_without_an_action_tells_nobody(way: Way, hook: Hook) -> None:
    assert way.say("repair", text="looked at by hand").state == "accepted"
    assert way.send() == 0
    assert "There is no repair explode" in way.say("repair", text="x", repair="explode").refusal


def test_a_webhook_that_is_down_is_tried_again_as_it_asks_with_one_key(
    way: Way, hook: Hook
) -> None:
    hook.answers = [(503, {"Retry-After": "120"}), (429, {}), (200, {})]
    way.say("repair", text="reboot it", repair="reboot")
    assert way.send() == 1
    way.world.offset_seconds += 100
    assert way.send() == 0, "it asked for two minutes"
    way.world.offset_seconds += 25
    assert way.send() == 1
    assert way.repair().call_error == "answered 429"
    way.world.offset_seconds += 30
    assert way.send() == 1
    assert way.repair().call == "sent"
    assert len({headers["Idempotency-Key"] for headers, _ in hook.heard}) == 1


def test_a_refusal_and_a_day_of_silence_end_it_with_the_reason_and_without_the_address(
    way: Way, hook: Hook, tmp_path: Path
) -> None:
    hook.answers = [(404, {})]
    way.say("repair", text="reboot it", repair="reboot")
    way.send()
    assert (way.repair().call, way.repair().call_error) == ("dead", "refused with 404")
    way.say("repair", text="again", repair="reboot")
    (tmp_path / "url").write_text("http://127.0.0.1:9/secret-path")
    way.send()
    assert way.repair().call == "pending"
    way.world.offset_seconds += 86_500
    way.send()
    assert way.repair().call == "dead"
    assert "given up: no answer" in way.repair().call_error
    assert not [row for row in way.world.audited() if "secret-path" in row.message]


def test_a_worker_that_dies_about_a_call_tells_at_least_once(way: Way, hook: Hook) -> None:
    way.say("repair", text="reboot it", repair="reboot")
    way.driver.lease.renew()
    hook.answers = [(200, {})]
    told, note = [], way.calls._note

    def dies(row: Any, now: Any, **values: Any) -> None:
        if values.get("call") == "sent":
            raise LeaseLost("the worker is gone")
        note(row, now, **values)
        told.append(values)

    way.calls._note = dies  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        way.calls.tick()
    way.calls = way.new_calls()
    way.world.offset_seconds += 7
    assert way.send() == 1
    assert way.repair().call == "sent"
    assert len({headers["Idempotency-Key"] for headers, _ in hook.heard}) == 1


def test_nothing_is_told_while_paused(way: Way, hook: Hook) -> None:
    way.say("repair", text="reboot it", repair="reboot")
    assert way.world.answer(way.driver, "pause", text="a change").state == "accepted"
    assert way.send() == 0
    assert way.world.answer(way.driver, "unpause", text="done").state == "accepted"
    assert way.send() == 1


def test_notes_are_kept_before_and_after_the_return(way: Way) -> None:
    way.say("repair", text="GPU 0 is lost")
    way.look()
    assert way.say("repair_note", text="riser replaced").state == "accepted"
    back = way.say("return")
    assert back.state == "accepted", back.refusal
    way.run(back.operation_id)
    assert not way.world.view().nodes[way.node].spec.unschedulable
    assert way.repair().returned_by == "ada"
    assert way.say("repair_note", text="ran a day without a fault").state == "accepted"
    texts = [note["text"] for note in way.repair().notes]
    assert texts == ["GPU 0 is lost", "riser replaced", "ran a day without a fault"]


def test_only_what_pitwall_cordoned_is_uncordoned_on_the_way_back(tmp_path: Path) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        world.people.request(
            "PATCH", f"/api/v1/nodes/{node}", body={"spec": {"unschedulable": True}}
        )
        world.wait(lambda view: view.nodes[node].spec.unschedulable)
        driver = Driver(world)
        ClusterSync(
            world.engine, settings=world.settings, watcher=world.watcher, clock=world.clock
        ).tick()
        assert world.answer(driver, "repair", nodes=[node], text="by hand").state == "accepted"
        refused = world.answer(driver, "return", nodes=[node])
        assert "cordoned by somebody else" in refused.refusal
        assert world.view().nodes[node].spec.unschedulable


@pytest.mark.parametrize(
    ("state", "said"),
    [("failed", "failed: 3 of 8 GPUs"), ("gone", "gone: 3 of 8 GPUs"), ("running", "still runs")],
)
def test_a_return_after_a_diagnostic_that_did_not_pass_is_to_be_typed(
    way: Way, state: str, said: str
) -> None:
    way.say("repair", text="GPU 0 is lost")
    way.look()
    _diagnosed(way, state)
    refused = way.say("return")
    assert refused.state == "refused"
    assert said in refused.refusal
    assert way.say("return", confirmation=way.node).state == "accepted"


def test_a_site_may_want_a_diagnostic_that_passed(tmp_path: Path) -> None:
    with world_of(tmp_path, return_needs_diagnostic=True) as world:
        way = Way(world)
        way.say("repair", text="GPU 0 is lost")
        way.look()
        assert "No diagnostic" in way.say("return").refusal
        _diagnosed(way, "passed")
        assert way.say("return").state == "accepted"


def _diagnosed(way: Way, state: str) -> None:
    now = way.world.clock()
    with write(way.world.engine) as connection:
        made = NodeDiagnostic(
            cluster=CLUSTER, id="d1", node=way.node, node_uid="u", requested_by="ada", requested_at=now,
            namespace="n", job="j", state=state, message="" if state == "running" else "3 of 8 GPUs",
            ended_at=None if state == "running" else now,
        )  # fmt: skip
        connection.execute(insert(table_of(NodeDiagnostic)).values(**made.model_dump()))


def test_a_node_that_fails_again_after_each_return_is_counted_and_called_a_lemon(way: Way) -> None:
    world = way.world

    def failed_again() -> int:
        with read(world.engine) as connection:
            return reoffences(connection, CLUSTER, [way.node], days=30, now=world.clock())[way.node]

    def returned() -> Any:
        way.say("repair", text="GPU 0 is lost")
        way.look()
        back = way.say("return", confirmation=way.node)
        assert back.state == "accepted", back.refusal
        way.run(back.operation_id)
        return back

    def fails(*, times: int = 1) -> None:
        world.offset_seconds += 3600
        with write(world.engine) as connection:
            for number in range(times):
                connection.execute(
                    insert(table_of(HealthEvent)).values(
                        cluster=CLUSTER, at=world.clock() + timedelta(seconds=number), node=way.node,
                        kind="node_health", code="Failing", severity="fatal", message="", count=1,
                    )
                )  # fmt: skip
        world.offset_seconds += 60
        way.run(world.drain(way.driver, way.node))
        way.look()

    fails()
    assert failed_again() == 0, "it was never given back"
    returned()
    fails(times=3)
    assert failed_again() == 1, "three failures after one return are one"
    assert "failed again" not in returned().answer["message"]
    fails()
    assert failed_again() == 2
    assert f"{way.node} has failed again 2 times" in returned().answer["message"]
