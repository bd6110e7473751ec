"""The Kubernetes face answers as an API server does, in status, shape and side effects."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from app.simulator.api.request import Request
from app.simulator.api.watch import Watch

PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def pod_of(name: str, **more: Any) -> dict:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"metadata": {"name": name, **more}, "spec": spec}


def test_nobody_gets_in_without_a_token(api) -> None:
    status, body = api.call("GET", PODS, token="")
    assert (status, body["reason"]) == (401, "Unauthorized")
    assert api.call("GET", PODS, token="wrong")[0] == 401
    assert api.call("GET", "/version", token="")[0] == 200


def test_a_created_object_gets_identity_and_defaults(api) -> None:
    status, pod = api.call("POST", PODS, pod_of("a"))
    assert status == 201
    assert pod["metadata"]["uid"]
    assert pod["metadata"]["creationTimestamp"] == "2026-03-01T12:00:00Z"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 30
    assert pod["status"]["phase"] == "Pending"


def test_generated_names_are_unique(api) -> None:
    bare = {
        "metadata": {"generateName": "a-"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    names = {api.call("POST", PODS, bare)[1]["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("a-") for name in names)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", f"{PODS}/none", None, 404, "NotFound"),
        ("POST", PODS, pod_of("taken"), 409, "AlreadyExists"),
        ("POST", PODS, pod_of("Bad_Name"), 422, "Invalid"),
        ("POST", PODS, {"metadata": {}, "spec": {}}, 422, "Invalid"),
        ("POST", PODS, {"kind": "Node"}, 400, "BadRequest"),
        ("POST", PODS, pod_of("a", namespace="other"), 400, "BadRequest"),
        ("POST", PODS, b"{", 400, "BadRequest"),
        ("POST", PODS, {"metadata": {"name": "a"}, "spec": "text"}, 400, "BadRequest"),
        ("POST", "/api/v1/namespaces/none/pods", pod_of("a"), 404, "NotFound"),
        ("GET", "/apis/none/v1/things", None, 404, "NotFound"),
        ("PUT", PODS, pod_of("a"), 405, "MethodNotAllowed"),
        ("GET", f"{PODS}?labelSelector=a==!b", None, 400, "BadRequest"),
        ("GET", f"{PODS}?fieldSelector=spec.colour=red", None, 400, "BadRequest"),
        ("GET", f"{PODS}?continue=nonsense", None, 400, "BadRequest"),
        ("GET", f"{PODS}?resourceVersion=999999&resourceVersionMatch=Exact", None, 504, "Timeout"),
        ("POST", f"{PODS}?dryRun=Some", pod_of("a"), 400, "BadRequest"),
    ],
)
def test_failures_have_their_status_and_reason(
    api, method: str, path: str, body: Any, status: int, reason: str
) -> None:
    api.call("POST", PODS, pod_of("taken"))
    found, answer = api.call(method, path, body)
    assert (found, answer["reason"], answer["code"]) == (status, reason, status)
    assert answer["kind"] == "Status"
    assert answer["status"] == "Failure"


@pytest.mark.parametrize(
    ("plural", "spec", "field"),
    [
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            {"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}},
            "spec.selector",
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            {"minAvailable": 1, "maxUnavailable": 1},
            "spec",
        ),
        (
            PODS,
            {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "lots"}}}]},
            "spec.containers[0].resources[cpu]",
        ),
        ("/api/v1/nodes", {"taints": [{"key": "a", "effect": "Never"}]}, "spec.taints[0].effect"),
    ],
)
def test_what_a_controller_could_not_read_is_not_stored(
    api, plural: str, spec: dict, field: str
) -> None:
    status, answer = api.call("POST", plural, {"metadata": {"name": "a"}, "spec": spec})
    assert (status, answer["details"]["causes"][0]["field"]) == (422, field)
    assert api.call("GET", f"{plural}/a")[0] == 404


def test_an_invalid_object_names_each_wrong_field(api) -> None:
    body = {"metadata": {"name": "a"}, "spec": {"containers": [], "restartPolicy": "Maybe"}}
    _, answer = api.call("POST", PODS, body)
    causes = {cause["field"]: cause["reason"] for cause in answer["details"]["causes"]}
    assert causes == {
        "spec.containers": "FieldValueRequired",
        "spec.restartPolicy": "FieldValueNotSupported",
    }


def test_a_write_with_an_old_version_conflicts(api) -> None:
    _, pod = api.call("POST", PODS, pod_of("a"))
    path = f"{PODS}/a"
    patch = {"metadata": {"labels": {"x": "1"}}}
    assert api.call("PATCH", path, patch, content_type=MERGE)[0] == 200
    status, answer = api.call("PUT", path, pod)
    assert (status, answer["reason"]) == (409, "Conflict")
    stale = {
        "metadata": {"resourceVersion": pod["metadata"]["resourceVersion"], "labels": {"y": "2"}}
    }
    assert api.call("PATCH", path, stale, content_type=MERGE)[0] == 409


def test_a_dry_run_answers_and_stores_nothing(api) -> None:
    status, pod = api.call("POST", f"{PODS}?dryRun=All", pod_of("a"))
    assert (status, pod["metadata"]["name"]) == (201, "a")
    assert api.call("GET", f"{PODS}/a")[0] == 404
    _, made = api.call("POST", PODS, pod_of("a"))
    patch = {"metadata": {"labels": {"x": "1"}}}
    _, patched = api.call("PATCH", f"{PODS}/a?dryRun=All", patch, content_type=MERGE)
    assert patched["metadata"]["labels"] == {"x": "1"}
    assert api.call("GET", f"{PODS}/a")[1] == made
    assert api.call("DELETE", f"{PODS}/a?dryRun=All")[0] == 200
    assert api.call("GET", f"{PODS}/a")[0] == 200


def test_a_patch_that_changes_nothing_makes_no_new_version(api) -> None:
    _, pod = api.call("POST", PODS, pod_of("a", labels={"x": "1"}))
    _, same = api.call(
        "PATCH", f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}}, content_type=STRATEGIC
    )
    assert same["metadata"]["resourceVersion"] == pod["metadata"]["resourceVersion"]


def test_an_unknown_patch_format_is_named(api) -> None:
    api.call("POST", PODS, pod_of("a"))
    status, answer = api.call("PATCH", f"{PODS}/a", {}, content_type="application/apply-patch+yaml")
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")


def test_status_and_spec_are_written_apart(api) -> None:
    api.call("POST", PODS, pod_of("a"))
    both = {"status": {"phase": "Running"}, "metadata": {"labels": {"x": "1"}}}
    _, pod = api.call("PATCH", f"{PODS}/a", both, content_type=MERGE)
    assert pod["status"]["phase"] == "Pending"
    wanted = {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}}
    _, pod = api.call("PATCH", f"{PODS}/a/status", wanted, content_type=MERGE)
    assert pod["status"]["phase"] == "Running"
    assert "nodeName" not in pod["spec"]


def test_a_pods_spec_is_fixed(api) -> None:
    api.call("POST", PODS, pod_of("a"))
    status, answer = api.call("PATCH", f"{PODS}/a", {"spec": {"priority": 9}}, content_type=MERGE)
    assert (status, answer["details"]["causes"][0]["reason"]) == (422, "FieldValueForbidden")


def test_a_generation_rises_with_the_spec_alone(api) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    body = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {}}}
    api.call("POST", budgets, body)
    api.call("PATCH", f"{budgets}/b", {"metadata": {"labels": {"x": "1"}}}, content_type=MERGE)
    _, same = api.call("GET", f"{budgets}/b")
    assert same["metadata"]["generation"] == 1
    _, changed = api.call(
        "PATCH", f"{budgets}/b", {"spec": {"minAvailable": 2}}, content_type=MERGE
    )
    assert changed["metadata"]["generation"] == 2


def test_selectors_choose(api) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": "1"}), ("c", {})):
        api.call("POST", PODS, pod_of(name, labels=labels))

    def names(query: str) -> list[str]:
        _, found = api.call("GET", f"{PODS}?{query}")
        return [one["metadata"]["name"] for one in found["items"]]

    assert names("labelSelector=x=1") == ["a"]
    assert names("labelSelector=x!=1") == ["b", "c"]
    assert names("labelSelector=x in (1,2),!y") == ["a"]
    assert names("labelSelector=y") == ["b"]
    assert names("labelSelector=x notin (1)") == ["b", "c"]
    assert names("fieldSelector=metadata.name!=b,status.phase=Pending") == ["a", "c"]
    assert names("fieldSelector=spec.nodeName=none") == []


def test_pages_belong_to_one_revision(api) -> None:
    for number in range(5):
        api.call("POST", PODS, pod_of(f"p{number}"))
    _, first = api.call("GET", f"{PODS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    api.call("DELETE", f"{PODS}/p3")
    api.call("POST", PODS, pod_of("p9"))
    token = first["metadata"]["continue"]
    _, second = api.call("GET", f"{PODS}?limit=2&continue={token}")
    _, third = api.call("GET", f"{PODS}?limit=2&continue={second['metadata']['continue']}")
    pages = [first, second, third]
    names = [one["metadata"]["name"] for page in pages for one in page["items"]]
    assert names == ["p0", "p1", "p2", "p3", "p4"]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    assert "continue" not in third["metadata"]


def test_a_continue_token_expires_and_offers_an_inconsistent_one(api) -> None:
    for number in range(3):
        api.call("POST", PODS, pod_of(f"p{number}"))
    _, first = api.call("GET", f"{PODS}?limit=1")
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    api.simulation.store.compact()
    status, answer = api.call("GET", f"{PODS}?limit=1&continue={first['metadata']['continue']}")
    assert (status, answer["reason"]) == (410, "Expired")
    fresh = answer["metadata"]["continue"]
    _, rest = api.call("GET", f"{PODS}?continue={fresh}")
    assert [one["metadata"]["name"] for one in rest["items"]] == ["p1", "p2"]


def test_kubectl_gets_a_table(api) -> None:
    api.call("POST", PODS, pod_of("a"))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    _, table = api.call("GET", PODS, accept=accept)
    assert table["kind"] == "Table"
    assert [one["name"] for one in table["columnDefinitions"]][:5] == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
    ]
    assert table["rows"][0]["cells"][:5] == ["a", "0/1", "Pending", "0", "0s"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (125, "2m5s"),
        (11 * 60, "11m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"),
        (50 * 3600, "2d2h"),
        (30 * 86_400, "30d"),
        (800 * 86_400, "2y70d"),
    ],
)
def test_ages_read_as_kubectl_writes_them(seconds: int, text: str) -> None:
    from app.simulator.api.columns import human_duration

    assert human_duration(seconds) == text


class Watcher:
    """Reads a watch as a client would."""

    def __init__(self, cluster: Any, query: dict[str, str]) -> None:
        token = cluster.simulation.api.authenticator.admin_token
        headers = {"authorization": f"Bearer {token}"}
        request = Request("GET", PODS, {"watch": "1", **query}, headers)
        answer = cluster.simulation.api.handle(request)
        assert isinstance(answer, Watch)
        self.watch = answer

    def read(self) -> list[tuple[str, Any]]:
        events = [msgspec.json.decode(line) for line in self.watch.pending]
        self.watch.pending.clear()
        return [(one["type"], one["object"]) for one in events]

    def names(self) -> list[tuple[str, str]]:
        return [(kind, obj["metadata"]["name"]) for kind, obj in self.read()]


@pytest.fixture
def watch(api) -> Callable[..., Watcher]:
    return lambda **query: Watcher(api, query)


def test_a_watch_goes_on_from_a_lists_version(api, watch) -> None:
    api.call("POST", PODS, pod_of("before"))
    _, found = api.call("GET", PODS)
    version = found["metadata"]["resourceVersion"]
    api.call("POST", PODS, pod_of("a"))
    watcher = watch(resourceVersion=version)
    api.call("PATCH", f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}}, content_type=MERGE)
    api.call("DELETE", f"{PODS}/a")
    assert watcher.names() == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_without_a_version_begins_with_what_is_there(api, watch) -> None:
    api.call("POST", PODS, pod_of("a"))
    assert watch().names() == [("ADDED", "a")]


def test_a_watch_by_selector_sees_objects_come_and_leave(api, watch) -> None:
    watcher = watch(labelSelector="x=1")
    api.call("POST", PODS, pod_of("a"))
    for labels in ({"x": "1"}, {"y": "2"}, {"x": "2"}):
        api.call("PATCH", f"{PODS}/a", {"metadata": {"labels": labels}}, content_type=MERGE)
    assert watcher.names() == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_from_a_forgotten_version_gets_410_as_an_event(api, watch) -> None:
    api.call("POST", PODS, pod_of("a"))
    _, found = api.call("GET", PODS)
    api.call("POST", PODS, pod_of("b"))
    api.simulation.store.compact()
    watcher = watch(resourceVersion=found["metadata"]["resourceVersion"])
    kind, status = watcher.read()[0]
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
    assert watcher.watch.closed


def test_a_bookmark_carries_the_present_version(api, watch) -> None:
    watcher = watch(allowWatchBookmarks="true", resourceVersion="1")
    api.call("POST", PODS, pod_of("a"))
    watcher.read()
    watcher.watch.bookmark()
    kind, obj = watcher.read()[0]
    assert kind == "BOOKMARK"
    assert obj["metadata"]["resourceVersion"] == str(api.simulation.store.revision)
    assert "name" not in obj["metadata"]


def test_initial_events_end_with_a_marked_bookmark(api, watch) -> None:
    api.call("POST", PODS, pod_of("a"))
    watcher = watch(
        sendInitialEvents="true",
        allowWatchBookmarks="true",
        resourceVersionMatch="NotOlderThan",
    )
    (first, _), (last, mark) = watcher.read()
    assert (first, last) == ("ADDED", "BOOKMARK")
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_interference_comes_before_or_after_the_effect(api) -> None:
    switches = api.simulation.api.switchboard
    switches.add({"method": "POST", "path_prefix": PODS, "status": 429, "retry_after": 3})
    status, answer = api.call("POST", PODS, pod_of("a"))
    assert (status, answer["details"]["retryAfterSeconds"]) == (429, 3)
    assert api.call("GET", f"{PODS}/a")[0] == 404
    switches.add({"method": "POST", "path_prefix": PODS, "status": 504, "after_effect": True})
    assert api.call("POST", PODS, pod_of("a"))[0] == 504
    assert api.call("GET", f"{PODS}/a")[0] == 200


def test_deletion_holds_for_finalizers(api) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    api.call("POST", path, {"metadata": {"name": "a", "finalizers": ["x.dev/hold"]}})
    status, held = api.call("DELETE", f"{path}/a")
    assert status == 200
    assert held["metadata"]["deletionTimestamp"]
    patch = {"metadata": {"finalizers": None}}
    assert api.call("PATCH", f"{path}/a", patch, content_type=MERGE)[0] == 200
    assert api.call("GET", f"{path}/a")[0] == 404


def test_preconditions_guard_a_deletion(api) -> None:
    _, pod = api.call("POST", PODS, pod_of("a"))
    wrong = {"preconditions": {"uid": "another"}}
    status, answer = api.call("DELETE", f"{PODS}/a", wrong)
    assert (status, answer["reason"]) == (409, "Conflict")
    right = {"preconditions": {"uid": pod["metadata"]["uid"]}}
    assert api.call("DELETE", f"{PODS}/a", right)[0] == 200
    assert api.call("GET", f"{PODS}/a")[0] == 404


def test_a_bound_pod_keeps_its_grace_and_an_unbound_one_goes_at_once(api) -> None:
    for name in ("bound", "loose"):
        api.call("POST", PODS, pod_of(name))
    api.call("POST", f"{PODS}/bound/binding", {"target": {"name": "n"}})
    api.call("DELETE", f"{PODS}/loose")
    assert api.call("GET", f"{PODS}/loose")[0] == 404
    api.call("DELETE", f"{PODS}/bound")
    _, pod = api.call("GET", f"{PODS}/bound")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 30
    assert pod["metadata"]["deletionTimestamp"] == "2026-03-01T12:00:30Z"
    api.call("DELETE", f"{PODS}/bound?gracePeriodSeconds=5")
    _, pod = api.call("GET", f"{PODS}/bound")
    assert pod["metadata"]["deletionTimestamp"] == "2026-03-01T12:00:05Z"
    api.call("DELETE", f"{PODS}/bound?gracePeriodSeconds=0")
    assert api.call("GET", f"{PODS}/bound")[0] == 404


def test_a_second_binding_conflicts(api) -> None:
    api.call("POST", PODS, pod_of("a"))
    binding = {"target": {"name": "n"}}
    assert api.call("POST", f"{PODS}/a/binding", binding)[0] == 201
    assert api.call("POST", f"{PODS}/a/binding", binding)[0] == 409


def test_a_namespace_takes_its_content_along(api) -> None:
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "gone"}})
    api.call("POST", "/api/v1/namespaces/gone/pods", pod_of("a"))
    api.call("POST", "/api/v1/namespaces/gone/pods/a/binding", {"target": {"name": "n"}})
    api.call("DELETE", "/api/v1/namespaces/gone")
    api.advance(0)
    _, namespace = api.call("GET", "/api/v1/namespaces/gone")
    assert namespace["status"]["phase"] == "Terminating"
    status, answer = api.call("POST", "/api/v1/namespaces/gone/pods", pod_of("b"))
    assert status == 403
    assert answer["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    api.call("DELETE", "/api/v1/namespaces/gone/pods/a?gracePeriodSeconds=0")
    api.advance(0)
    assert api.call("GET", "/api/v1/namespaces/gone")[0] == 404
