"""Reports over the wire: who may send them, what is refused and why, and that 200 means stored."""

import gzip
import http.client
import socket
import sqlite3
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import Engine, text

from app.ingest.errors import Refusal
from app.ingest.metrics import IngestMetrics
from app.ingest.writer import ReportWriter
from app.store.engine import read, write
from app.store.reads import fleet, status
from collectors.report import MAX_DECODED_BYTES, MAX_REPORT_BYTES, encode_report
from tests.integration.ingest.conftest import CLUSTER, Ingest, now
from tests.reports import finding, gpu, report, xid


def count(ingest: Ingest, table: str) -> int:
    with read(ingest.engine) as connection:
        return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def message(response: object) -> str:
    return str(response.json()["error"]["message"])  # type: ignore[attr-defined]


def test_answer_200_means_stored(ingest: Ingest, nodes: list[str]) -> None:
    answer = ingest.push(report(nodes[0], observed_at=now()))
    assert (answer.status_code, answer.json()) == (
        200,
        {"outcome": "stored", "closed_episodes": []},
    )
    node = fleet.node(ingest.engine, CLUSTER, nodes[0])
    assert node is not None
    assert node.health == "Healthy"


def test_an_agent_that_hangs_up_is_counted_and_is_no_error_of_ingest(
    shared_ingest: Ingest, nodes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    target = shared_ingest.client.base_url
    with socket.create_connection((target.host, target.port)) as sent:
        sent.sendall(
            b"POST /agent/v1/reports HTTP/1.1\r\nHost: ingest\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer " + shared_ingest.token_of(nodes[0]).encode() + b"\r\n\r\nhalf"
        )
    counted = 0.0
    tick = threading.Event()
    for _ in range(100):
        counted = shared_ingest.metric(
            "pitwall_ingest_reports_refused_total", reason="disconnected"
        )
        if counted:
            break
        tick.wait(0.05)
    assert counted == 1
    assert "Exception in ASGI application" not in caplog.text


def test_report_sent_again_is_stored_once(ingest: Ingest, nodes: list[str]) -> None:
    sent = report(nodes[0], observed_at=now(), xids=[xid()])
    assert [ingest.push(sent).json()["outcome"] for _ in range(3)] == [
        "stored",
        "duplicate",
        "duplicate",
    ]
    assert ingest.metric("pitwall_ingest_reports_total", outcome="duplicate") == 2


def test_fault_reaches_the_frames_within_two_seconds(ingest: Ingest, nodes: list[str]) -> None:
    ingest.push(report(nodes[0], observed_at=now()))
    ingest.push(report(nodes[0], sequence=2, observed_at=now(), findings=[finding()]))
    ended = threading.Event()
    for _ in range(100):
        counts = status.counts(ingest.engine, CLUSTER)
        if counts.nodes_by_health["Failing"] == 1:
            break
        ended.wait(0.02)
    assert counts.nodes_by_health["Failing"] == 1
    frame = fleet.frame(ingest.engine, CLUSTER, "node_state")
    assert frame is not None
    assert zlib.decompress(frame.data) == bytes([2])


def test_two_ingests_share_one_store(
    ingest: Ingest, simulator: object, token_of: Callable[..., str], nodes: list[str]
) -> None:
    from tests.integration.ingest.conftest import start_ingest

    second = start_ingest(ingest.engine, simulator, token_of)  # type: ignore[arg-type]
    try:
        sent = [
            (place, report(node, sequence=sequence, observed_at=now()))
            for sequence in range(1, 9)
            for place, node in enumerate(nodes)
        ]
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda one: (ingest, second)[one[0] % 2].push(one[1]).status_code, sent)
            )
    finally:
        second.stop()
    assert set(answers) == {200}
    assert count(ingest, "node") == len(nodes)
    assert count(ingest, "report_stream") == len(nodes)


def test_agent_is_told_which_episodes_are_closed(ingest: Ingest, nodes: list[str]) -> None:
    node = nodes[0]
    ingest.push(report(node, sequence=1, observed_at=now(), findings=[finding()]))
    ingest.push(report(node, sequence=2, observed_at=now()))
    answer = ingest.push(report(node, sequence=3, observed_at=now(), findings=[finding()]))
    assert answer.json()["closed_episodes"] == ["e1"]


def test_stop_stores_what_waits_and_the_history(ingest: Ingest, nodes: list[str]) -> None:
    ingest.push(report(nodes[0], observed_at=now()))
    ingest.stop()
    assert count(ingest, "gpu_minute") == 1
    assert count(ingest, "fleet_frame") == 6


# From here on: what is refused. Nothing of it may leave a trace.


@pytest.fixture
def refusing(shared_ingest: Ingest) -> Ingest:
    yield shared_ingest  # type: ignore[misc]
    for table in ("node", "gpu", "report_stream", "finding", "health_event"):
        assert count(shared_ingest, table) == 0


def test_no_token_is_401(refusing: Ingest, nodes: list[str]) -> None:
    answer = refusing.client.post("/agent/v1/reports", content=b"")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "unauthenticated"


def test_token_that_is_none_is_401(refusing: Ingest, nodes: list[str]) -> None:
    answer = refusing.push(report(nodes[0], observed_at=now()), token="made-up")
    assert answer.status_code == 401


def test_token_for_another_audience_is_401(
    refusing: Ingest, nodes: list[str], token_of: Callable[..., str]
) -> None:
    token = token_of(nodes[0], audience="somebody-else")
    assert refusing.push(report(nodes[0], observed_at=now()), token=token).status_code == 401


def test_report_of_another_node_is_403(
    refusing: Ingest, nodes: list[str], token_of: Callable[..., str]
) -> None:
    answer = refusing.push(report(nodes[1], observed_at=now()), token=token_of(nodes[0]))
    assert answer.status_code == 403
    assert nodes[0] in message(answer)
    assert nodes[1] in message(answer)


def test_token_bound_to_no_node_is_403(
    refusing: Ingest, nodes: list[str], token_of: Callable[..., str]
) -> None:
    answer = refusing.push(report(nodes[0], observed_at=now()), token=token_of())
    assert answer.status_code == 403
    assert "bound to no node" in message(answer)


def test_token_of_another_account_is_403(
    refusing: Ingest, nodes: list[str], token_of: Callable[..., str]
) -> None:
    token = token_of(nodes[0], account="pitwall-worker")
    answer = refusing.push(report(nodes[0], observed_at=now()), token=token)
    assert answer.status_code == 403
    assert "pitwall-worker" in message(answer)


def test_report_of_another_cluster_is_403(refusing: Ingest, nodes: list[str]) -> None:
    answer = refusing.push(report(nodes[0], observed_at=now(), cluster="elsewhere"))
    assert answer.status_code == 403
    assert "elsewhere" in message(answer)


@pytest.mark.parametrize(
    ("away", "said"), [(timedelta(seconds=400), "ahead"), (timedelta(days=-8), "ago")]
)
def test_clock_that_is_wrong_is_400(
    refusing: Ingest, nodes: list[str], away: timedelta, said: str
) -> None:
    answer = refusing.push(report(nodes[0], observed_at=now() + away))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "clock")
    assert said in message(answer)


def test_unknown_schema_version_is_400_and_names_those_taken(
    refusing: Ingest, nodes: list[str]
) -> None:
    answer = refusing.push(report(nodes[0], observed_at=now(), schema_version=9))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "schema_version")
    assert "this release reads 1" in message(answer)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no gzip": (lambda body: b"plain text", "not gzip"),
    "gzip cut short": (lambda body: body[:-20], "cut short"),
    "gzip of no JSON": (lambda body: gzip.compress(b"{nonsense"), "not JSON"),
    "empty": (lambda body: b"", "cut short"),
    "a list": (lambda body: gzip.compress(b"[1, 2]"), "not JSON with a schema_version"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_body_is_400(refusing: Ingest, nodes: list[str], kind: str) -> None:
    breaking, said = BROKEN[kind]
    token = refusing.token_of(nodes[0])
    answer = refusing.push_body(breaking(encode_report(report(nodes[0]))), token=token)
    assert answer.status_code == 400
    assert said in message(answer)


FIELDS: dict[str, tuple[dict, str]] = {
    "a word for a number": ({"sequence": "seven"}, "$.sequence"),
    "a ratio above 1": ({"gpus": [{"uuid": "g", "gpu_utilization_ratio": 1.5}]}, "$.gpus[0]"),
    "a counter beyond 64 bits": (
        {"gpus": [{"uuid": "g", "ecc_corrected_total": 2**63}]},
        "$.gpus[0]",
    ),
    "a time without a zone": ({"observed_at": "2026-11-24T12:00:00"}, "$.observed_at"),
    "a severity that is none": (
        {
            "findings": [
                {
                    "episode": "e",
                    "rule": "r",
                    "severity": "dreadful",
                    "message": "",
                    "action": "",
                    "since": "2026-11-24T12:00:00Z",
                }
            ]
        },
        "$.findings[0].severity",
    ),
    "a field missing": ({"spool_id": None}, "$.spool_id"),
    "a NUL character": ({"boot_id": "a\x00b"}, "report.boot_id"),
    "a GPU named twice": ({"gpus": [{"uuid": "g"}, {"uuid": "g"}]}, "$.gpus"),
}


@pytest.mark.parametrize("kind", FIELDS)
def test_field_that_is_wrong_is_400_and_named(
    refusing: Ingest, nodes: list[str], kind: str
) -> None:
    changes, where = FIELDS[kind]
    document = msgspec.to_builtins(report(nodes[0], observed_at=now())) | changes
    body = gzip.compress(msgspec.json.encode(document))
    answer = refusing.push_body(body, token=refusing.token_of(nodes[0]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid")
    assert where in message(answer)


def test_body_over_the_limit_is_413_before_it_is_read(refusing: Ingest, nodes: list[str]) -> None:
    host = refusing.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.putrequest("POST", "/agent/v1/reports")
    connection.putheader("Authorization", f"Bearer {refusing.token_of(nodes[0])}")
    connection.putheader("Content-Encoding", "gzip")
    connection.putheader("Content-Length", str(10 * 2**30))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()


def test_chunked_body_over_the_limit_is_413(refusing: Ingest, nodes: list[str]) -> None:
    pieces = iter([b"x" * 65536] * (MAX_REPORT_BYTES // 65536 + 2))
    answer = refusing.client.post(
        "/agent/v1/reports",
        content=pieces,
        headers={
            "Authorization": f"Bearer {refusing.token_of(nodes[0])}",
            "Content-Encoding": "gzip",
        },
    )
    assert answer.status_code == 413


def test_body_that_unpacks_to_too_much_is_413(refusing: Ingest, nodes: list[str]) -> None:
    bomb = gzip.compress(b" " * (MAX_DECODED_BYTES * 40))
    assert len(bomb) < MAX_REPORT_BYTES
    answer = refusing.push_body(bomb, token=refusing.token_of(nodes[0]))
    assert answer.status_code == 413
    assert "unpacks" in message(answer)


def test_unknown_encoding_is_415(refusing: Ingest, nodes: list[str]) -> None:
    sent = {"Content-Encoding": "br"}
    assert refusing.push(report(nodes[0]), **sent).status_code == 415


def test_refusals_are_counted_by_reason(refusing: Ingest, nodes: list[str]) -> None:
    before = refusing.metric("pitwall_ingest_reports_refused_total", reason="clock")
    refusing.push(report(nodes[0], observed_at=now() + timedelta(hours=1)))
    after = refusing.metric("pitwall_ingest_reports_refused_total", reason="clock")
    assert after == before + 1


def test_many_pushes_ask_for_one_token_review(
    ingest: Ingest, nodes: list[str], token_of: Callable[..., str]
) -> None:
    token = token_of(nodes[0])
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(
                lambda sequence: (
                    ingest.push(
                        report(nodes[0], sequence=sequence, observed_at=now()), token=token
                    ).status_code
                ),
                range(1, 13),
            )
        )
    assert set(answers) == {200}
    assert ingest.metric("pitwall_ingest_token_reviews_total", result="valid") == 1


def test_api_server_that_does_not_answer_is_503(
    sqlite_engine: object, tmp_path: object, simulator: object, token_of: Callable[..., str]
) -> None:
    from tests.integration.ingest.conftest import start_ingest

    class Gone:
        kubeconfig = tmp_path / "nowhere"  # type: ignore[operator]

    running = start_ingest(sqlite_engine, Gone(), token_of)  # type: ignore[arg-type]
    try:
        answer = running.push(report("n1", observed_at=now()), token="t")
    finally:
        running.stop()
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_locked_store_is_503_and_nothing_is_half_stored(
    sqlite_engine: object,
    simulator: object,
    token_of: Callable[..., str],
    nodes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.store.engine import open_store
    from tests.integration.ingest.conftest import start_ingest

    monkeypatch.setattr("app.store.engine.BUSY_TIMEOUT_SECONDS", 0.2)
    impatient = open_store(str(sqlite_engine.url))  # type: ignore[attr-defined]
    running = start_ingest(impatient, simulator, token_of)  # type: ignore[arg-type]
    sent = report(nodes[0], observed_at=now(), gpus=[gpu(nodes[0])])
    holder = sqlite3.connect(
        str(impatient.url.database), isolation_level=None, check_same_thread=False
    )
    try:
        holder.execute("BEGIN IMMEDIATE")
        answer = running.push(sent)
        assert answer.status_code == 503
        assert "held it for too long" in message(answer)
        assert int(answer.headers["Retry-After"]) > 0
        assert running.client.get("/readyz").status_code == 503
        holder.execute("ROLLBACK")
        assert count(running, "node") == 0
        assert running.push(sent).json()["outcome"] == "stored"
        assert running.client.get("/readyz").status_code == 200
    finally:
        holder.close()
        running.stop()


def test_report_that_no_column_can_hold_harms_no_other(engine: Engine) -> None:
    metrics = IngestMetrics()
    writer = ReportWriter(engine, CLUSTER, metrics=metrics, silence_seconds=45.0, now=now)
    sent = [report(f"n{number}", observed_at=now()) for number in range(5)]
    sent[2] = report("n2", observed_at=now(), gpus=[gpu("n2", 0, memory_used_bytes=2**70)])
    writer.start()
    with write(engine):  # the writer waits its turn, so that they come in one batch or two
        answers = [writer.submit(one) for one in sent]
    failures = [answer.exception(timeout=20) for answer in answers]
    writer.stop()
    assert [failure is None for failure in failures] == [True, True, False, True, True]
    refusal = failures[2]
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (400, "unstorable")
    assert [node.name for node in fleet.nodes(engine, CLUSTER)] == ["n0", "n1", "n3", "n4"]
