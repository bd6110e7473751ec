"""The reflector against a server that restarts, falls silent, forgets, and says nonsense."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import structlog
from scripted_api import ScriptedApi, status_body

from k8s.client import Connection
from k8s.reflector import Change, Reflector
from k8s.resources import NODES


class Following:
    """A reflector in its thread, and what it told."""

    def __init__(self, connection: Connection, **options: float) -> None:
        self.changes: list[Change] = []
        self.present: dict[str, str] = {}
        self._told = threading.Condition()
        settings = {"watch_seconds": 20, "silence_margin_seconds": 5.0, "page_objects": 2}
        self.reflector = Reflector(connection, NODES, self._take, **{**settings, **options})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.reflector.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def _take(self, change: Change) -> None:
        with self._told:
            self.changes.append(change)
            name = change.object.metadata.name
            if change.kind == "deleted":
                if self.present.get(name) == change.uid:
                    del self.present[name]
            else:
                self.present[name] = change.uid
            self._told.notify_all()

    def wait(self, holds: Callable[[], bool], seconds: float = 10) -> None:
        with self._told:
            assert self._told.wait_for(holds, seconds), (self.present, self.reflector.last_error)

    def told(self) -> list[tuple[str, str]]:
        return [(change.kind, change.object.metadata.name) for change in self.changes]

    def end(self) -> None:
        self._stop.set()
        self.reflector.interrupt()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def follow(connection: Connection) -> Iterator[Callable[..., Following]]:
    started: list[Following] = []

    def start(**options: float) -> Following:
        started.append(Following(connection, **options))
        return started[-1]

    yield start
    for following in started:
        following.end()


def await_watch(api: ScriptedApi, count: int = 1) -> None:
    """Waits until that many watches have been opened."""
    deadline = time.monotonic() + 10
    while api.watches_opened < count:
        assert time.monotonic() < deadline, f"{api.watches_opened} watches"
        time.sleep(0.01)


def test_lists_in_pages_and_tells_every_object_before_it_is_synced(api, follow):
    for i in range(5):
        api.put(f"node-{i}")
    following = follow()
    assert following.reflector.synced.wait(5)
    assert sorted(following.present) == [f"node-{i}" for i in range(5)]
    lists = [params for path, params in api.requests if "watch" not in params]
    assert [params.get("continue") for params in lists] == [None, "2", "4"]
    assert all(params["limit"] == "2" for params in lists)


def test_tells_what_comes_changes_and_goes(api, follow):
    following = follow()
    await_watch(api)
    api.put("a")
    api.put("a", spec={"unschedulable": True})
    api.remove("a")
    following.wait(lambda: len(following.changes) == 3)
    assert following.told() == [("added", "a"), ("modified", "a"), ("deleted", "a")]
    assert following.changes[1].object.spec.unschedulable


def test_a_bookmark_moves_the_version_that_the_next_watch_starts_from(api, follow):
    following = follow()
    await_watch(api)
    api.bookmark()
    api.bookmark()
    at = str(api.version)
    api.end_watches()
    deadline = time.monotonic() + 10
    while not [1 for _, params in api.requests if params.get("resourceVersion") == at]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert following.reflector.lists_total == 1
    assert not following.changes


def test_a_watch_that_the_server_ends_goes_on_without_a_list(api, follow):
    following = follow(watch_seconds=1)
    await_watch(api)
    api.put("a")
    following.wait(lambda: "a" in following.present)
    time.sleep(1.1)
    api.put("b")
    following.wait(lambda: "b" in following.present)
    assert following.reflector.lists_total == 1


def test_410_on_opening_a_watch_lists_again_and_tells_what_vanished(api, follow):
    api.put("stays")
    api.put("goes")
    following = follow()
    await_watch(api)
    api.forget_history()
    api.remove("goes", silently=True)
    api.put("comes")
    api.forget_history()
    api.version += 1
    api.forget_history()
    api.oldest_watchable = api.version
    api.end_watches()
    following.wait(lambda: set(following.present) == {"stays", "comes"})
    assert ("deleted", "goes") in following.told()


def test_410_in_the_middle_of_a_stream_lists_again(api, follow):
    api.put("goes")
    following = follow()
    await_watch(api)
    api.remove("goes", silently=True)
    api.send({"type": "ERROR", "object": status_body(410, "Expired", "too old resource version")})
    following.wait(lambda: not following.present)
    assert following.reflector.lists_total == 2
    assert following.reflector.failing_since is None


def test_an_error_event_that_is_not_410_watches_again_from_where_it_was(api, follow):
    following = follow()
    await_watch(api)
    api.put("a")
    following.wait(lambda: "a" in following.present)
    api.send({"type": "ERROR", "object": status_body(500, "InternalError", "etcd has no leader")})
    await_watch(api, 2)
    api.put("b")
    following.wait(lambda: "b" in following.present)
    assert following.reflector.lists_total == 1


def test_an_expired_continue_token_starts_the_list_again_the_last_time_unpaged(api, follow):
    for i in range(5):
        api.put(f"node-{i}")
    api.expire_tokens = 2
    following = follow()
    assert following.reflector.synced.wait(5)
    assert len(following.present) == 5
    assert "limit" not in [params for _, params in api.requests if "watch" not in params][-1]


def test_an_unchanged_object_is_not_told_again_by_a_relist(api, follow):
    api.put("a")
    following = follow()
    await_watch(api)
    api.send({"type": "ERROR", "object": status_body(410, "Expired")})
    deadline = time.monotonic() + 5
    while following.reflector.lists_total < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    await_watch(api, 2)
    assert following.told() == [("added", "a")]


def test_a_successor_of_the_same_name_found_by_a_relist_is_a_deletion_and_an_addition(api, follow):
    api.put("a", uid="first")
    following = follow()
    await_watch(api)
    api.remove("a", silently=True)
    with api.lock:
        api.objects["a"] = {"metadata": {"name": "a", "uid": "second", "resourceVersion": "999"}}
    api.send({"type": "ERROR", "object": status_body(410, "Expired")})
    following.wait(lambda: following.present == {"a": "second"})
    assert [(change.kind, change.uid) for change in following.changes] == [
        ("added", "first"),
        ("deleted", "first"),
        ("added", "second"),
    ]


def test_survives_a_restart_of_the_api_server(api, follow):
    api.put("a")
    following = follow()
    await_watch(api)
    with structlog.testing.capture_logs() as logs:
        api.stop()
        deadline = time.monotonic() + 5
        while following.reflector.failing_since is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        api.put("b")
        api.remove("a")
        api.start()
        following.wait(lambda: set(following.present) == {"b"}, 15)
    said = [entry["event"] for entry in logs]
    assert said.count("kubernetes source fails") == 1
    assert said.count("kubernetes source answers again") == 1
    assert following.reflector.failing_since is None


def test_a_silent_watch_is_given_up_after_its_time_and_opened_again(api, follow):
    api.silent_watches = 1
    following = follow(watch_seconds=1, silence_margin_seconds=0.5)
    await_watch(api)
    api.put("a")
    following.wait(lambda: "a" in following.present)
    assert following.reflector.lists_total == 1


def test_a_malformed_object_in_a_list_is_counted_and_the_others_are_told(api, follow):
    api.put("good")
    api.put("bad", spec={"unschedulable": "perhaps"})
    with structlog.testing.capture_logs() as logs:
        following = follow()
        assert following.reflector.synced.wait(5)
    assert set(following.present) == {"good"}
    assert following.reflector.malformed_total == 1
    complaints = [entry for entry in logs if "can not be read" in entry["event"]]
    assert [entry["name"] for entry in complaints] == ["bad"]


def test_a_malformed_object_in_a_watch_is_complained_of_once_and_passed_over(api, follow):
    following = follow()
    await_watch(api)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            api.put("bad", spec={"unschedulable": "perhaps"})
        api.put("good")
        following.wait(lambda: "good" in following.present)
    assert following.reflector.malformed_total == 3
    assert len([entry for entry in logs if "can not be read" in entry["event"]]) == 1


def test_an_object_that_becomes_malformed_is_not_taken_for_deleted(api, follow):
    api.put("a")
    following = follow()
    await_watch(api)
    api.put("a", spec={"unschedulable": "perhaps"})
    api.send({"type": "ERROR", "object": status_body(410, "Expired")})
    api.put("b")
    following.wait(lambda: "b" in following.present)
    assert ("deleted", "a") not in following.told()


def test_the_deletion_of_a_malformed_object_is_told(api, follow):
    api.put("a")
    following = follow()
    await_watch(api)
    api.put("a", spec={"unschedulable": "perhaps"})
    api.remove("a")
    following.wait(lambda: "a" not in following.present)


def test_a_line_that_is_no_event_breaks_the_watch_and_it_goes_on(api, follow):
    following = follow()
    await_watch(api)
    api.send(b"<html>a proxy's opinion</html>")
    await_watch(api, 2)
    api.put("a")
    following.wait(lambda: "a" in following.present)
    assert following.reflector.lists_total == 1


def test_a_kind_that_is_not_installed_is_synced_and_empty(api, follow):
    api.answers = [(404, {}, status_body(404, "NotFound"))] * 4
    following = follow(absent_pause_seconds=60)
    assert following.reflector.synced.wait(5)
    assert not following.present


def test_overload_is_waited_out_as_the_server_asks(api, follow):
    api.put("a")
    api.answers = [(429, {"Retry-After": "1"}, status_body(429, "TooManyRequests"))]
    began = time.monotonic()
    following = follow()
    following.wait(lambda: "a" in following.present)
    assert time.monotonic() - began >= 1


def test_the_time_of_the_last_contact_is_known(api, follow):
    before = datetime.now(UTC)
    following = follow(watch_seconds=1)
    await_watch(api)
    assert following.reflector.last_contact_at is not None
    first = following.reflector.last_contact_at
    assert before <= first <= datetime.now(UTC)
    deadline = time.monotonic() + 5
    while following.reflector.last_contact_at == first:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_stopping_interrupts_a_watch_that_waits(api, follow):
    following = follow(watch_seconds=60)
    await_watch(api)
    began = time.monotonic()
    following.end()
    assert time.monotonic() - began < 2
