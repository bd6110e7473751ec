"""The spool on a real disk: in order, bounded, and whole after any end of its process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import SpoolError
from collectors.spool import RESERVE, Spool

BOOT = "7c6f0bd2-4ef1-4c4d-9a6c-7a3f3c5a7a11"


def open_spool(directory: Path, *, boot_id: str = BOOT, max_bytes: int = 1 << 20) -> Spool:
    return Spool(directory, max_bytes=max_bytes, boot_id=boot_id)


def put(spool: Spool, *bodies: bytes) -> list[int]:
    sequences = []
    for body in bodies:
        sequences.append(spool.next_sequence())
        spool.append(body, sequence=sequences[-1])
    return sequences


def drain(spool: Spool) -> list[tuple[int, bytes]]:
    taken = []
    while (entry := spool.oldest()) is not None:
        taken.append(entry)
        spool.remove(entry[0])
    return taken


def test_reports_come_out_in_order_and_once(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    assert put(spool, b"a", b"b", b"c") == [1, 2, 3]
    assert spool.oldest() == (1, b"a")
    assert spool.oldest() == (1, b"a"), "kept until it is removed"
    assert drain(spool) == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert (spool.oldest(), len(spool)) == (None, 0)


def test_a_new_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    put(first, b"a", b"b", b"c")
    first.remove(1)
    second = open_spool(tmp_path)
    assert second.spool_id == first.spool_id
    assert put(second, b"d") == [4]
    assert [sequence for sequence, _ in drain(second)] == [2, 3, 4]
    third = open_spool(tmp_path)
    assert put(third, b"e") == [5], "an empty spool remembers its sequence"


def test_a_spool_id_is_random(tmp_path: Path) -> None:
    assert open_spool(tmp_path / "a").spool_id != open_spool(tmp_path / "b").spool_id


@given(cut=st.integers(min_value=1, max_value=60), garbage=st.binary(max_size=40))
def test_a_torn_tail_is_cut_off_and_the_rest_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    put(open_spool(directory), b"first" * 5, b"second" * 5, b"third" * 5)
    (segment,) = directory.glob("*.segment")
    segment.write_bytes(segment.read_bytes()[:-cut] + garbage)
    spool = open_spool(directory)
    kept = drain(spool)
    assert kept == [(1, b"first" * 5), (2, b"second" * 5), (3, b"third" * 5)][: len(kept)]
    assert len(kept) >= 1
    sequences = put(spool, b"new")
    assert sequences[0] > (kept[-1][0] if kept else 0)
    assert drain(spool)[0][1] == b"new"


def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=64 * 1024)
    total = 200
    put(spool, *(b"x" * 1000 for _ in range(total)))
    assert spool.size_bytes <= 64 * 1024
    kept = [sequence for sequence, _ in drain(spool)]
    assert kept == list(range(total - len(kept) + 1, total + 1))
    assert spool.dropped_total == total - len(kept) > 0
    assert open_spool(tmp_path).dropped_total == spool.dropped_total


def test_a_report_taken_while_its_segment_was_dropped_is_passed_over(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=64 * 1024)
    put(spool, b"x" * 1000)
    entry = spool.oldest()
    assert entry is not None
    put(spool, *(b"x" * 1000 for _ in range(200)))
    before = len(spool)
    spool.remove(entry[0])
    assert len(spool) == before


def test_after_a_crash_of_the_machine_no_sequence_is_used_twice(tmp_path: Path) -> None:
    first = open_spool(tmp_path, boot_id="boot-a")
    put(first, b"a", b"b")
    # The machine loses what was not synced: the segment is gone, the state is old.
    for segment in tmp_path.glob("*.segment"):
        segment.unlink()
    second = open_spool(tmp_path, boot_id="boot-b")
    assert second.spool_id == first.spool_id
    assert put(second, b"c")[0] > RESERVE


def test_a_broken_state_makes_a_new_spool_and_counts_what_is_lost(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    put(first, b"a", b"b")
    (tmp_path / "spool.state").write_bytes(b"\xff" * 104)
    second = open_spool(tmp_path)
    assert second.spool_id != first.spool_id
    assert second.dropped_total == 2
    assert put(second, b"c") == [1]


def test_rejected_reports_are_counted_and_the_newest_kept(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for sequence in put(spool, *(f"{n}".encode() for n in range(20))):
        spool.reject(sequence, f"{sequence - 1}".encode())
    assert (spool.rejected_total, len(spool)) == (20, 0)
    kept = sorted((tmp_path / "rejected").iterdir())
    assert [path.read_bytes() for path in kept] == [f"{n}".encode() for n in range(4, 20)]
    assert open_spool(tmp_path).rejected_total == 20


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="file/spool cannot be opened"):
        open_spool(tmp_path / "file" / "spool")


@given(
    st.lists(
        st.one_of(st.just("put"), st.just("take"), st.just("restart"), st.just("reboot")),
        max_size=60,
    )
)
def test_any_story_leaves_sequences_rising_and_nothing_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, story: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    boot, spool = 0, open_spool(directory, boot_id="boot-0")
    written: list[int] = []
    taken: list[int] = []
    for word in story:
        if word == "put":
            written += put(spool, b"body")
        elif word == "take":
            entry = spool.oldest()
            if entry is not None:
                taken.append(entry[0])
                spool.remove(entry[0])
        else:
            boot += word == "reboot"
            spool = open_spool(directory, boot_id=f"boot-{boot}")
    taken += [sequence for sequence, _ in drain(spool)]
    assert taken == written
    assert written == sorted(set(written))
