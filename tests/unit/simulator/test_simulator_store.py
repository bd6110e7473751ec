"""The store keeps versions, order and history."""

from datetime import UTC, datetime, timedelta

import pytest

from app.simulator.clock import ManualClock
from app.simulator.store import Compacted, Event, Missing, Stale, Store, Taken

START = datetime(2026, 3, 1, tzinfo=UTC)


def thing(name: str, **more: object) -> dict:
    return {"metadata": {"name": name}, **more}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return Store(clock, history_length=4)


def test_one_revision_counts_writes_of_all_kinds(store: Store) -> None:
    first = store.create("a", ("", "x"), thing("x"))
    second = store.create("b", ("", "x"), thing("x"))
    assert second.revision == first.revision + 1
    assert second.object["metadata"]["resourceVersion"] == str(second.revision)


def test_a_writer_with_an_old_version_is_refused(store: Store) -> None:
    old = store.create("a", ("", "x"), thing("x"))
    store.update("a", ("", "x"), thing("x", n=1), expected_revision=old.revision)
    with pytest.raises(Stale):
        store.update("a", ("", "x"), thing("x", n=2), expected_revision=old.revision)
    with pytest.raises(Stale):
        store.delete("a", ("", "x"), expected_revision=old.revision)
    with pytest.raises(Taken):
        store.create("a", ("", "x"), thing("x"))
    with pytest.raises(Missing):
        store.update("a", ("", "y"), thing("y"))


def test_a_dry_run_changes_nothing(store: Store) -> None:
    heard: list[Event] = []
    store.collection("a").listeners.append(heard.append)
    before = store.revision
    store.create("a", ("", "x"), thing("x"), dry_run=True)
    assert (store.revision, store.get("a", ("", "x")), heard) == (before, None, [])


def test_history_tells_what_came_after_a_revision_until_it_is_forgotten(store: Store) -> None:
    start = store.revision
    for number in range(6):
        store.create("a", ("", f"x{number}"), thing(f"x{number}"))
    names = [event.record.key[1] for event in store.collection("a").since(start + 2)]
    assert names == ["x2", "x3", "x4", "x5"]
    with pytest.raises(Compacted):
        store.collection("a").since(start + 1)


def test_a_deletion_is_an_event_with_its_own_revision(store: Store) -> None:
    store.create("a", ("", "x"), thing("x"))
    gone = store.delete("a", ("", "x"))
    event = store.collection("a").since(gone.revision - 1)[0]
    assert event.type == "DELETED"
    assert event.record.object["metadata"]["resourceVersion"] == str(gone.revision)


def test_a_snapshot_stays_what_it_was_and_ends_after_five_minutes(
    store: Store, clock: ManualClock
) -> None:
    for name in "cab":
        store.create("a", ("", name), thing(name))
    revision, records = store.snapshot("a")
    store.update("a", ("", "b"), thing("b", n=1))
    store.delete("a", ("", "c"))
    assert [one.key[1] for one in records] == ["a", "b", "c"]
    assert store.at_revision("a", revision) == records
    assert "n" not in store.at_revision("a", revision)[1].object
    clock.move_to(START + timedelta(minutes=5, seconds=1))
    with pytest.raises(Compacted):
        store.at_revision("a", revision)


def test_compaction_forgets_history_and_lists_in_progress(store: Store) -> None:
    store.create("a", ("", "x"), thing("x"))
    revision, _ = store.snapshot("a")
    store.create("b", ("", "x"), thing("x"))
    store.compact()
    with pytest.raises(Compacted):
        store.at_revision("a", revision)
    with pytest.raises(Compacted):
        store.collection("a").since(revision - 1)
    assert store.collection("a").since(store.revision) == []


def test_an_index_follows_changes(store: Store) -> None:
    collection = store.collection("a")
    collection.add_index("colour", lambda obj: [obj["colour"]])
    store.create("a", ("", "x"), thing("x", colour="red"))
    store.create("a", ("", "y"), thing("y", colour="red"))
    store.update("a", ("", "x"), thing("x", colour="blue"))
    store.delete("a", ("", "y"))
    assert collection.by_index("colour", "red") == []
    assert [one.key[1] for one in collection.by_index("colour", "blue")] == ["x"]
