"""What the client sends, retries, and raises."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from scripted_api import ScriptedApi, status_body

from k8s.client import Connection, Impersonation, connect
from k8s.errors import ApiError, ConfigurationError, UnreachableError


def patch(connection: Connection) -> None:
    connection.request("PATCH", "/api/v1/nodes/a", body={"spec": {"unschedulable": True}})


def test_a_get_is_tried_again_on_passing_answers(api: ScriptedApi, connection: Connection):
    api.put("a")
    api.answers = [
        (503, {"Retry-After": "0"}, b"starting"),
        (429, {"Retry-After": "0"}, status_body(429, "TooManyRequests")),
    ]
    assert b'"a"' in connection.get("/api/v1/nodes")
    assert len(api.requests) == 3


def test_a_get_gives_up_in_the_end(api: ScriptedApi, connection: Connection):
    api.answers = [(500, {"Retry-After": "0"}, status_body(500, "InternalError"))] * 10
    with pytest.raises(ApiError) as raised:
        connection.get("/api/v1/nodes")
    assert raised.value.status == 500
    assert len(api.requests) == 4


def test_a_refusal_is_not_tried_again(api: ScriptedApi, connection: Connection):
    api.answers = [(403, {}, status_body(403, "Forbidden", "no"))] * 2
    with pytest.raises(ApiError, match=r"GET /api/v1/nodes answered 403 Forbidden: no"):
        connection.get("/api/v1/nodes")
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_write_is_sent_once_whatever_the_answer(api, connection, status):
    api.answers = [(status, {"Retry-After": "1"}, status_body(status, "Some"))] * 3
    with pytest.raises(ApiError) as raised:
        patch(connection)
    assert raised.value.retry_after_seconds == 1
    assert len(api.requests) == 1


def test_an_error_tells_causes_details_and_when_to_come_back(api, connection):
    cause = {"reason": "DisruptionBudget", "message": "The disruption budget b needs 4"}
    details = {"name": "p", "causes": [cause], "retryAfterSeconds": 10}
    api.answers = [(429, {}, status_body(429, "TooManyRequests", "later", **details))]
    with pytest.raises(ApiError) as raised:
        connection.request("POST", "/api/v1/namespaces/d/pods/p/eviction", body={})
    error = raised.value
    assert error.has_cause("DisruptionBudget")
    assert error.retry_after_seconds == 10
    assert error.details["name"] == "p"


def test_an_answer_that_is_no_status_is_quoted(api, connection):
    api.answers = [(502, {}, b"<html>bad gateway</html>")]
    with pytest.raises(ApiError, match="bad gateway"):
        patch(connection)


def test_a_dry_run_says_so_and_names_the_field_manager(api, connection):
    api.answers = [(200, {}, {})]
    connection.request("PATCH", "/api/v1/nodes/a", body={}, dry_run=True)
    assert api.requests == [("PATCH /api/v1/nodes/a", {"fieldManager": "pitwall", "dryRun": "All"})]


def test_no_answer_is_unreachable_with_the_address(api, connection):
    api.stop()
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{api.port} had no answer"):
        patch(connection)
    api.start()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, api: ScriptedApi):
    patient = connect(api.kubeconfig(tmp_path), connect_timeout_seconds=1, read_timeout_seconds=0.3)
    api.lock.acquire()  # the server's handlers block on it
    began = time.monotonic()
    try:
        with pytest.raises(UnreachableError):
            patch(patient)
    finally:
        api.lock.release()
    assert time.monotonic() - began < 2


def test_impersonation_and_token_are_sent(api, connection, monkeypatch):
    seen = {}
    original = api.serve

    def serve(handler):
        seen.update({key: handler.headers.get_all(key) for key in handler.headers})
        original(handler)

    api.serve = serve
    connection.impersonating(Impersonation("ada", ("sre", "oncall"))).get("/api/v1/nodes")
    lowered = {key.lower(): values for key, values in seen.items()}
    assert lowered["authorization"] == ["Bearer secret-token"]
    assert lowered["impersonate-user"] == ["ada"]
    groups = lowered["impersonate-group"]
    assert ", ".join(groups) == "sre, oncall"


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        connect(tmp_path / "nowhere")


def test_a_kubeconfig_that_makes_no_sense_is_named(tmp_path: Path):
    path = tmp_path / "config"
    path.write_text("contexts: 7\n")
    with pytest.raises(ConfigurationError, match=str(path)):
        connect(path)


def test_a_server_on_loopback_is_not_looked_for_behind_a_proxy(api, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    api.put("a")
    assert b'"a"' in connect(api.kubeconfig(tmp_path)).get("/api/v1/nodes")
