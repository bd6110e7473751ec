"""Who may ask what: tokens with audiences and bound objects, reviews, the table of roles."""

from datetime import timedelta
from typing import Any

import pytest

from app.simulator.api.protobuf import decode_body
from app.simulator.clock import ManualClock

ACCOUNTS = "/api/v1/namespaces/pitwall/serviceaccounts"
AUTHENTICATION, AUTHORIZATION = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
NODE = "h100-b01-r1-n1"


def token_of(cluster, account: str, **spec: Any) -> str:
    status, answer = cluster.call("POST", f"{ACCOUNTS}/{account}/token", {"spec": spec})
    assert status == 201, answer
    return answer["status"]["token"]


def review(cluster, token: str, *audiences: str, reviewer: str | None = None) -> dict:
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    status, answer = cluster.call(
        "POST", f"{AUTHENTICATION}/tokenreviews", {"spec": spec}, token=reviewer
    )
    assert status == 201, answer
    return answer["status"]


def bound_token(cluster, account: str = "pitwall-agent", audience: str = "pitwall") -> str:
    uid = cluster.node(NODE)["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": uid}
    return token_of(cluster, account, audiences=[audience], boundObjectRef=reference)


def test_a_bound_token_names_its_node(cluster) -> None:
    ingest = token_of(cluster, "pitwall-ingest")
    found = review(cluster, bound_token(cluster), "pitwall", "other", reviewer=ingest)
    assert found["authenticated"]
    assert found["audiences"] == ["pitwall"]
    assert found["user"]["username"] == "system:serviceaccount:pitwall:pitwall-agent"
    assert "system:serviceaccounts:pitwall" in found["user"]["groups"]
    assert found["user"]["extra"]["authentication.kubernetes.io/node-name"] == [NODE]


def test_a_token_for_another_audience_proves_nothing(cluster) -> None:
    found = review(cluster, bound_token(cluster))
    assert not found["authenticated"]
    assert "audiences" in found["error"]
    status, _ = cluster.call("GET", "/api/v1/nodes", token=bound_token(cluster))
    assert status == 401


def test_a_bound_token_ends_with_its_node(cluster) -> None:
    token = bound_token(cluster)
    assert cluster.call("DELETE", f"/api/v1/nodes/{NODE}")[0] == 200
    assert not review(cluster, token, "pitwall")["authenticated"]


def test_a_token_ends_with_its_time(cluster) -> None:
    token = token_of(cluster, "pitwall-agent", expirationSeconds=600)
    assert review(cluster, token)["authenticated"]
    clock = cluster.simulation.clock
    assert isinstance(clock, ManualClock)
    clock.move_to(clock.now() + timedelta(seconds=601))
    assert "expired" in review(cluster, token)["error"]


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "a.e30.c"])
def test_a_forged_token_proves_nothing(cluster, token: str) -> None:
    assert not review(cluster, token)["authenticated"]


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"expirationSeconds": 10}, 422),
        ({"boundObjectRef": {"kind": "Node", "name": "none"}}, 404),
        ({"boundObjectRef": {"kind": "Node", "name": NODE, "uid": "another"}}, 409),
        ({"boundObjectRef": {"kind": "Job", "name": "a"}}, 422),
    ],
)
def test_a_token_request_that_makes_no_sense_is_refused(cluster, spec: dict, status: int) -> None:
    assert cluster.call("POST", f"{ACCOUNTS}/pitwall-agent/token", {"spec": spec})[0] == status


@pytest.mark.parametrize(
    ("account", "method", "path", "status"),
    [
        ("pitwall-worker", "GET", "/api/v1/nodes", 200),
        ("pitwall-worker", "PATCH", f"/api/v1/nodes/{NODE}", 200),
        ("pitwall-worker", "DELETE", f"/api/v1/nodes/{NODE}", 403),
        ("pitwall-ingest", "GET", "/api/v1/nodes", 403),
        ("pitwall-agent", "GET", "/api/v1/pods", 403),
        ("pitwall-agent", "GET", "/apis", 200),
    ],
)
def test_accounts_may_do_what_their_role_says(
    cluster, account: str, method: str, path: str, status: int
) -> None:
    token = token_of(cluster, account)
    body = {"metadata": {"labels": {"x": "1"}}} if method == "PATCH" else None
    found, answer = cluster.call(
        method, path, body, token=token, content_type="application/merge-patch+json"
    )
    assert found == status
    if status == 403:
        assert answer["reason"] == "Forbidden"
        assert f"system:serviceaccount:pitwall:{account}" in answer["message"]


@pytest.mark.parametrize(
    ("user", "groups", "verb", "resource", "allowed"),
    [
        ("system:serviceaccount:pitwall:pitwall-worker", [], "patch", "nodes", True),
        ("system:serviceaccount:pitwall:pitwall-agent", [], "patch", "nodes", False),
        ("ada", ["system:masters"], "delete", "nodes", True),
        ("ada", ["pitwall:operators"], "patch", "nodes", True),
        ("ada", ["pitwall:viewers"], "patch", "nodes", False),
        ("ada", ["pitwall:viewers"], "list", "nodes", True),
    ],
)
def test_access_reviews_answer_from_the_same_table(
    api, user: str, groups: list[str], verb: str, resource: str, allowed: bool
) -> None:
    attributes = {"verb": verb, "resource": resource}
    spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
    status, answer = api.call("POST", f"{AUTHORIZATION}/subjectaccessreviews", {"spec": spec})
    assert (status, answer["status"]["allowed"]) == (201, allowed)


def test_a_master_can_act_as_somebody_else_and_nobody_else_can(cluster) -> None:
    status, answer = cluster.call("GET", "/api/v1/nodes", impersonate_user="ada")
    assert status == 403
    assert '"ada"' in answer["message"]
    as_viewer = {"impersonate_user": "ada", "impersonate_group": "pitwall:viewers"}
    assert cluster.call("GET", "/api/v1/nodes", **as_viewer)[0] == 200
    worker = token_of(cluster, "pitwall-worker")
    assert cluster.call("GET", "/api/v1/nodes", token=worker, **as_viewer)[0] == 403


def _field(number: int, raw: bytes | int) -> bytes:
    if isinstance(raw, int):
        return bytes([number << 3, raw])
    return bytes([number << 3 | 2, len(raw)]) + raw


def test_an_eviction_is_read_from_protobuf() -> None:
    type_meta = _field(1, b"policy/v1") + _field(2, b"Eviction")
    label = _field(11, _field(1, b"app") + _field(2, b"x"))
    metadata = _field(1, b"pod") + _field(3, b"default") + label
    preconditions = _field(2, _field(1, b"uid-1"))
    options = _field(1, 0) + preconditions + _field(5, b"All")
    raw = _field(1, metadata) + _field(2, options)
    body = b"k8s\x00" + _field(1, type_meta) + _field(2, raw) + _field(3, b"") + _field(4, b"")
    assert decode_body(body) == {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "pod", "namespace": "default", "labels": {"app": "x"}},
        "deleteOptions": {
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": "uid-1"},
            "dryRun": ["All"],
        },
    }


@pytest.mark.parametrize("body", [b"{}", b"k8s\x00\x0a\xff", b"k8s\x00\x0a\x05\x12\x03Pod"])
def test_protobuf_that_is_not_read_is_refused(api, body: bytes) -> None:
    status, _ = api.call(
        "POST",
        "/api/v1/namespaces/default/pods",
        body,
        content_type="application/vnd.kubernetes.protobuf",
    )
    assert status in (400, 415)
