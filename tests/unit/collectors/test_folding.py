"""Repeats and the two sources folded into events, by the window that is shown."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from collectors.folding import Folding, Occurrence, fold, forget_old, has_news, take_untold
from collectors.xid import parse_kernel_line
from tests.captures import RECORDED

START = datetime(2025, 2, 23, 16, 24, 18, tzinfo=UTC)
GSP_LOG = RECORDED / "gpud/dmesg-with-xid-119.log"
NUMBERS = itertools.count()


def tell(
    folding: Folding,
    *seconds: float,
    code: int = 119,
    source: str = "kernel",
    window: float = 5,
    **values: object,
) -> Folding:
    for second in seconds:
        occurrence = Occurrence(
            **{
                "at": START + timedelta(seconds=second),
                "code": code,
                "kind": "xid",
                "source": source,
                "pci_bus_id": "0000:9b:00.0",
                **values,
            }
        )
        folding, _ = fold(
            # Over the disk, as after each restart of an agent.
            msgspec.json.decode(msgspec.json.encode(folding), type=Folding),
            occurrence,
            window_seconds=window,
            new_id=lambda: f"event-{next(NUMBERS)}",
        )
    return folding


def counts(folding: Folding) -> list[int]:
    return [known.event.count for known in folding.events]


@pytest.mark.parametrize(("window", "events"), [(5, [1, 1, 1, 1, 1]), (60, [3, 1, 1]), (300, [5])])
def test_the_window_is_from_one_line_to_the_next(window: float, events: list[int]) -> None:
    # The gaps of a recorded H100 log: 6, 6, 162 and 181 s.
    folding = tell(Folding(), 0, 6, 12, 174, 355, window=window)
    assert counts(folding) == events
    assert {known.event.window_seconds for known in folding.events} == {window}


@pytest.mark.parametrize(("window", "events"), [(5, 5), (60, 3), (300, 1)])
def test_the_recorded_log_folds_as_it_should(window: float, events: int) -> None:
    if not GSP_LOG.exists():
        pytest.skip(f"{GSP_LOG} is missing: the recorded log cannot be folded")
    folding = Folding()
    for line in GSP_LOG.read_text(errors="replace").splitlines():
        told = parse_kernel_line(line)
        stamp = re.match(r"\[(\w{3} \w{3} +\d+ [\d:]+ \d{4})\]", line)
        if told is not None and stamp is not None:
            at = datetime.strptime(stamp[1], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
            folding = tell(
                folding,
                (at - START).total_seconds(),
                code=told.code,
                pci_bus_id=told.pci_bus_id,
                window=window,
            )
    assert len(folding.events) == events
    assert sum(counts(folding)) == 5


def test_both_sources_of_one_fault_are_one_event_of_count_one() -> None:
    folding = tell(Folding(), 0, source="nvml", gpu_uuid="GPU-1")
    folding = tell(folding, 0.2, source="kernel", gpu_uuid="GPU-1", text="Timeout after 6s")
    (known,) = folding.events
    assert (known.event.count, known.event.source) == (1, "nvml+kernel")
    assert known.event.text == "Timeout after 6s"
    # Two more from the log and one more from NVML: three faults, told five times.
    folding = tell(folding, 1, 2, source="kernel", gpu_uuid="GPU-1")
    folding = tell(folding, 1, source="nvml", gpu_uuid="GPU-1")
    assert counts(folding) == [3]


def test_a_line_read_late_still_belongs_to_its_event() -> None:
    folding = tell(Folding(), 10, source="nvml", gpu_uuid="GPU-1")
    folding = tell(folding, 9.5, source="kernel", gpu_uuid="GPU-1")
    assert counts(folding) == [1]
    assert folding.events[0].event.at == START + timedelta(seconds=9.5)


def test_other_codes_and_other_gpus_are_other_events() -> None:
    folding = tell(Folding(), 0, code=13)
    folding = tell(folding, 0, code=43)
    folding = tell(folding, 0, code=13, pci_bus_id="0000:10:00.0")
    assert counts(folding) == [1, 1, 1]


def test_follow_on_lines_do_not_count() -> None:
    switch = {"code": 20034, "kind": "sxid", "pci_bus_id": "0000:05:00.0"}
    folding = tell(Folding(), 0, text="Fatal, Link 62", **switch)
    folding = tell(folding, 0.001, 0.002, text="Severity 1 ...", follow_on=True, **switch)
    assert counts(folding) == [1]
    assert folding.events[0].event.text == "Fatal, Link 62"


def test_two_actions_of_154_are_two_events_but_nvmls_word_joins_the_logs() -> None:
    folding = tell(Folding(), 0, code=154, source="nvml")
    folding = tell(folding, 0.1, code=154, recovery_action=4)
    assert counts(folding) == [1]
    assert folding.events[0].event.recovery_action == 4
    folding = tell(folding, 0.2, code=154, recovery_action=1)
    assert [known.event.recovery_action for known in folding.events] == [4, 1]


def test_what_is_new_is_told_once_and_told_again_when_it_grows() -> None:
    folding = tell(Folding(), 0)
    assert has_news(folding)
    folding, told = take_untold(folding, limit=10)
    assert [event.count for event in told] == [1]
    assert not has_news(folding)
    assert take_untold(folding, limit=10)[1] == []
    folding = tell(folding, 1, 2)
    assert not has_news(folding), "growth alone waits for the next report"
    folding, again = take_untold(folding, limit=10)
    assert [(event.event_id, event.count) for event in again] == [(told[0].event_id, 3)]


def test_a_full_report_leaves_the_rest_for_the_next() -> None:
    folding = Folding()
    for code in range(1, 8):
        folding = tell(folding, 0, code=code)
    folding, first = take_untold(folding, limit=5)
    folding, second = take_untold(folding, limit=5)
    assert [event.xid for event in (*first, *second)] == [1, 2, 3, 4, 5, 6, 7]


def test_only_what_was_told_and_is_old_is_forgotten() -> None:
    folding = tell(Folding(), 0, 100)
    later = START + timedelta(seconds=500)
    assert len(forget_old(folding, now=later, window_seconds=5).events) == 2
    folding, _ = take_untold(folding, limit=10)
    assert forget_old(folding, now=later, window_seconds=5) == Folding()
    assert forget_old(folding, now=later, window_seconds=600) == folding
