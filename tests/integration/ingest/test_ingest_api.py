"""/v1: proved callers, pages, requests with their author, errors in one sentence, and a true OpenAPI."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from sqlalchemy import insert, text

from app.store.engine import read, write
from app.store.frames import refresh_frames
from app.store.reads.rows import table_of
from app.store.records import PermissionRecord
from app.store.tables import Finding, Incident, IncidentEvent
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.permissions import store_permissions
from app.store.writes.picture import changes_between
from app.store.writes.reports import store_reports
from tests.integration.ingest.conftest import CLUSTER, Ingest
from tests.reports import at, finding, gpu, report, xid
from tests.unit.store.test_store_kubernetes import picture


@pytest.fixture
def v1(ingest: Ingest, simulator: Any) -> Iterator[httpx.Client]:
    """A client with an administrator's token before a store with two nodes, a job and a fault."""
    with write(ingest.engine) as connection:
        store_kubernetes(connection, CLUSTER, changes_between(None, picture()), at(0))
        faulty = report("n1", findings=[finding(gpu_uuid="GPU-n1-0")], xids=[xid()])
        healthy = report("n2", gpus=[gpu("n2", index) for index in range(8)])
        store_reports(connection, CLUSTER, [faulty, healthy], at(2))
        refresh_frames(connection, CLUSTER, at(2), whole=True)
    headers = {"Authorization": f"Bearer {simulator.admin_token}"}
    with httpx.Client(base_url=ingest.url, headers=headers, timeout=30) as client:
        yield client


def test_status_counts_the_fleet(v1: httpx.Client) -> None:
    found = v1.get("/v1/status").json()
    counts = found["counts"]
    assert (found["cluster"], counts["nodes"], counts["jobs_running"]) == (CLUSTER, 2, 1)
    assert counts["nodes_by_health"] == {"Healthy": 1, "Degraded": 0, "Failing": 1, "Unknown": 0}
    assert counts["jobs_at_risk"] == 1
    assert (counts["gpus"], counts["gpus_requested"], counts["gpus_usable"]) == (16, 16, 8)
    assert counts["gpus_by_health"] == {"Healthy": 9, "Degraded": 0, "Failing": 1, "Unknown": 6}


def test_listing_goes_page_by_page_to_its_end(v1: httpx.Client) -> None:
    seen: list[str] = []
    after = None
    while True:
        page = v1.get("/v1/gpus", params={"limit": 3, **({"after": after} if after else {})}).json()
        seen += [item["uuid"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert len(seen) == len(set(seen)) == 10
    assert seen == sorted(seen)


def test_filters_and_order_are_the_callers(v1: httpx.Client) -> None:
    def names(**params: str) -> list[str]:
        return [item["name"] for item in v1.get("/v1/nodes", params=params).json()["items"]]

    assert names() == ["n1", "n2"]
    assert names(order="worst") == ["n1", "n2"]
    assert names(health="Failing") == ["n1"]
    assert names(rack="r2") == ["n2"]
    assert names(search="off the bus") == ["n1"]
    assert names(service="In service", health="Unknown") == []


def test_node_comes_with_all_that_is_known_of_it(v1: httpx.Client) -> None:
    found = v1.get("/v1/nodes/n1").json()
    assert found["node"]["health"] == "Failing"
    assert [one["uuid"] for one in found["gpus"]] == ["GPU-n1-0", "GPU-n1-1"]
    assert [pod["uid"] for pod in found["pods"]] == ["p0"]
    assert [one["rule"] for one in found["findings"]] == ["gpu-lost"]
    assert {event["kind"] for event in found["events"]} == {"finding_opened", "xid", "node_health"}


def test_job_comes_with_ranks_and_pods(v1: httpx.Client) -> None:
    (listed,) = v1.get("/v1/jobs", params={"at_risk": True}).json()["items"]
    assert listed["nodes_failing"] == 1
    found = v1.get("/v1/jobs/j1").json()
    assert [rank["node"] for rank in found["ranks"]] == ["n1", "n2"]


def test_incident_comes_with_its_timeline_and_its_findings(
    v1: httpx.Client, ingest: Ingest
) -> None:
    """Its own findings alone, the closed one too; what it names and the store has no more is left out."""
    (known,) = v1.get("/v1/nodes/n1").json()["findings"]
    closed = {
        "cluster": CLUSTER, "episode": "e-closed", "node": "n1", "rule": "node-not-ready", "severity": "critical",
        "message": "not ready", "source": "kubernetes", "look_next": "the kubelet", "opened_at": at(0), "seen_at": at(1), "closed_at": at(1),
    }  # fmt: skip
    incident = {
        "cluster": CLUSTER, "id": "i-1", "scope": "node", "subject": "n1", "severity": "fatal", "title": "n1: a GPU is lost", "cause": "gpu-lost",
        "opened_at": at(2), "updated_at": at(2), "nodes": ["n1"], "findings": [known["episode"], "e-closed", "e-forgotten"],
        "first": {"node": "n1", "rule": "gpu-lost"},
    }  # fmt: skip
    events = [
        {"cluster": CLUSTER, "incident_id": "i-1", "at": at(second), "kind": kind, "author": author, "message": message}
        for second, kind, author, message in ((3, "note", "ann", "looking"), (2, "opened", "", "GPU 0 is lost"))
    ]  # fmt: skip
    with write(ingest.engine) as connection:
        connection.execute(insert(table_of(Finding)), [{**closed, "episode": "e-other"}, closed])
        connection.execute(insert(table_of(Incident)), [incident])
        connection.execute(insert(table_of(IncidentEvent)), events)
    found = v1.get("/v1/incidents/i-1").json()
    assert found["incident"]["first"] == {"node": "n1", "rule": "gpu-lost"}
    assert found["incident"]["certainty"] is None
    assert [one["message"] for one in found["timeline"]] == ["GPU 0 is lost", "looking"]
    assert [one["episode"] for one in found["findings"]] == ["e-closed", known["episode"]]
    assert found["findings"][0]["closed_at"] is not None
    assert (found["findings"][0]["source"], found["findings"][0]["look_next"]) == (
        "kubernetes",
        "the kubelet",
    )
    assert [one["id"] for one in v1.get("/v1/incidents").json()["items"]] == ["i-1"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/nodes/nowhere", 404, "not_found"),
        ("/v1/jobs/none", 404, "not_found"),
        ("/v1/operations/none", 404, "not_found"),
        ("/v1/requests/none", 404, "not_found"),
        ("/v1/incidents/none", 404, "not_found"),
        ("/v1/nothing", 404, "not_found"),
        ("/v1/gpus?after=gone", 404, "not_found"),
        ("/v1/nodes?limit=0", 400, "invalid"),
        ("/v1/nodes?health=Splendid", 400, "invalid"),
    ],
)
def test_error_is_a_word_and_a_sentence(
    v1: httpx.Client, path: str, status: int, code: str
) -> None:
    answer = v1.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_call_without_token_is_401(shared_ingest: Ingest) -> None:
    for path in ("/v1/status", "/v1/nodes", "/v1/whoami"):
        assert shared_ingest.client.get(path).status_code == 401


def test_caller_without_the_right_to_list_nodes_is_403(
    shared_ingest: Ingest, token_of: Callable[..., str]
) -> None:
    headers = {"Authorization": f"Bearer {token_of(audience=None)}"}
    answer = shared_ingest.client.get("/v1/nodes", headers=headers)
    assert answer.status_code == 403
    assert "pitwall-agent may not list nodes" in answer.json()["error"]["message"]
    asked = {"kind": "drain", "parameters": {"nodes": ["n1"]}, "reason": "r"}
    refused = shared_ingest.client.post("/v1/requests", headers=headers, json=asked)
    assert refused.status_code == 403


def test_token_for_agents_reads_nothing(
    shared_ingest: Ingest, token_of: Callable[..., str], nodes: list[str]
) -> None:
    headers = {"Authorization": f"Bearer {token_of(nodes[0])}"}
    assert shared_ingest.client.get("/v1/nodes", headers=headers).status_code == 401


def test_caller_is_told_who_they_are(v1: httpx.Client) -> None:
    found = v1.get("/v1/whoami").json()
    assert found["username"]
    assert (found["may_read"], found["may_write"]) == (True, True)


def test_caller_is_told_what_the_worker_heard_while_it_is_fresh(
    v1: httpx.Client, ingest: Ingest
) -> None:
    username = v1.get("/v1/whoami").json()["username"]

    def heard(at: datetime) -> None:
        fact = PermissionRecord("patch", "nodes", False, "taken away", at)
        with write(ingest.engine) as connection:
            store_permissions(connection, CLUSTER, [(username, fact)], now=at)

    heard(datetime.now(UTC))
    found = v1.get("/v1/whoami").json()
    assert (found["may_read"], found["may_write"]) == (True, False)
    assert [(one["verb"], one["resource"], one["allowed"]) for one in found["permissions"]] == [
        ("patch", "nodes", False)
    ]
    heard(datetime.now(UTC) - timedelta(seconds=91))
    stale = v1.get("/v1/whoami").json()
    assert (stale["may_write"], stale["permissions"]) == (True, [])


def test_request_carries_the_proved_author_and_is_audited(v1: httpx.Client, ingest: Ingest) -> None:
    asked = {
        "kind": "drain",
        "parameters": {"nodes": ["n1"], "author": "mallory"},
        "reason": "XID 79",
        "idempotency_key": "k1",
    }
    answer = v1.post("/v1/requests", json=asked)
    assert answer.status_code == 202
    written = answer.json()
    assert written["author"] == v1.get("/v1/whoami").json()["username"]
    assert (written["state"], written["reason"]) == ("pending", "XID 79")
    assert written["author_groups"] == v1.get("/v1/whoami").json()["groups"] != []
    assert v1.post("/v1/requests", json=asked).json()["id"] == written["id"]
    assert v1.get(f"/v1/requests/{written['id']}").json() == written
    with read(ingest.engine) as connection:
        rows = connection.execute(
            text("SELECT author, actor, action, target, target_uid, message FROM audit_entry")
        ).all()
    assert [tuple(row) for row in rows] == [
        (written["author"], "ingest", "request", "drain n1", written["id"], "XID 79")
    ]


def test_key_used_for_another_request_is_409(v1: httpx.Client) -> None:
    asked = {"kind": "uncordon", "parameters": {"nodes": ["n1"]}, "idempotency_key": "k2"}
    assert v1.post("/v1/requests", json=asked).status_code == 202
    other = asked | {"parameters": {"nodes": ["n2"]}}
    answer = v1.post("/v1/requests", json=other)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    "body",
    [
        {"parameters": {}},
        {"kind": "explode", "parameters": {}},
        {"kind": "drain", "parameters": [], "reason": ""},
        {"kind": "drain", "parameters": {}, "author": "mallory"},
    ],
)
def test_request_that_is_none_is_400(v1: httpx.Client, body: dict) -> None:
    answer = v1.post("/v1/requests", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid")


def test_health_and_metrics_need_no_token(shared_ingest: Ingest) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert shared_ingest.client.get(path).status_code == 200


def test_openapi_describes_what_is_answered(v1: httpx.Client) -> None:
    """Each documented GET is called, and its answer held against its own schema."""
    document = v1.get("/openapi.json").json()
    names = {"name": "n1", "uid": "j1"}
    asked = {"kind": "preview", "parameters": {"action": "drain", "nodes": ["n1"]}}
    posted = v1.post("/v1/requests", json=asked)
    operation = document["paths"]["/v1/requests"]["post"]
    check(document, operation["responses"]["202"], posted.json())
    names["request_id"] = posted.json()["id"]
    called = 0
    for path, operations in document["paths"].items():
        if not path.startswith("/v1/") or "get" not in operations:
            continue
        answer = v1.get(path.format_map(Names(names)))
        responses = operations["get"]["responses"]
        assert str(answer.status_code) in responses, path
        check(document, responses[str(answer.status_code)], answer.json())
        called += answer.status_code == 200
    assert called >= 9


def test_openapi_names_the_errors_a_call_gives(v1: httpx.Client) -> None:
    document = v1.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            if path.startswith(("/v1/", "/agent/")):
                assert {"401", "503"} <= operation["responses"].keys()
                assert operation["security"] == [{"token": []}]


def test_openapi_of_a_report_takes_reports_and_refuses_others(v1: httpx.Client) -> None:
    import msgspec

    document = v1.get("/openapi.json").json()
    operation = document["paths"]["/agent/v1/reports"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    sent = msgspec.to_builtins(report(findings=[finding()], xids=[xid()]))
    sent = msgspec.json.decode(msgspec.json.encode(sent))
    jsonschema.validate(sent, {**schema, "components": document["components"]})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            sent | {"sequence": "seven"}, {**schema, "components": document["components"]}
        )


class Names(dict):
    """Names for a path's fields; any other is one that nothing has."""

    def __missing__(self, key: str) -> str:
        return "none"


def check(document: dict, response: dict, answer: Any) -> None:
    schema = response["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": document["components"]})
    assert "$ref" in schema
