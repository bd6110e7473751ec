"""How findings open, stay and end."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.actions import INSPECT_HARDWARE, RESET_GPU, RESTART_NODE
from collectors.conditions import Condition
from collectors.health import BUILT_IN, NodeFacts, RuleSet
from collectors.judgement import judge
from collectors.ledger import Ledger, Moment, close_episodes
from collectors.readings import GpuReading
from collectors.report import XidEvent
from collectors.rule import Rule

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WHOLE = NodeFacts(gpu_count=2, expected_gpus=2, silent_seconds=0.0)


def gpu(number: int = 0, **values: object) -> GpuReading:
    reading = GpuReading(
        uuid=f"GPU-{number}",
        index=number,
        pci_bus_id=f"0000:{number:02x}:00.0",
        energy_joules_total=1_000.0,
        ecc_uncorrected_total=0,
        remap_pending=False,
        remap_failure=False,
        recovery_action=0,
    )
    return msgspec.structs.replace(reading, **values)


class Bench:
    """A ledger with a clock and its own episode numbers."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.now = START
        self.boot_id = "boot-1"
        self.numbers = itertools.count(1)
        self.known: dict[str, GpuReading] = {}
        self.rules = BUILT_IN

    def step(
        self,
        *gpus: GpuReading,
        xids: Sequence[XidEvent] = (),
        facts: NodeFacts = WHOLE,
        seconds: float = 5,
        polled: bool = True,
    ) -> list[str]:
        self.now += timedelta(seconds=seconds)
        readings = (gpus or (gpu(0), gpu(1))) if polled else None
        if readings is not None:
            self.known = {reading.uuid: reading for reading in readings}
        self.ledger = judge(
            # Over the disk, as after each restart of an agent.
            msgspec.json.decode(msgspec.json.encode(self.ledger), type=Ledger),
            moment=Moment(self.now, self.boot_id, lambda: f"e{next(self.numbers)}"),
            facts=facts,
            gpus=readings,
            xids=xids,
            known=self.known,
            rules=self.rules,
        )
        return [finding.rule for finding in self.ledger.findings]

    def xid(self, code: int, *, count: int = 1, event: str = "x", **values: object) -> XidEvent:
        made = XidEvent(
            event_id=event, at=self.now, last_at=self.now, xid=code, gpu_uuid="GPU-0", count=count
        )
        return msgspec.structs.replace(made, **values)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    assert made.step() == []
    return made


def test_a_level_finding_keeps_its_episode_and_closes_with_its_cause(bench: Bench) -> None:
    assert bench.step(gpu(0, remap_pending=True), gpu(1)) == ["remap-pending"]
    (first,) = bench.ledger.findings
    assert first.gpu_uuid == "GPU-0"
    assert bench.step(gpu(0, remap_pending=True), gpu(1)) == ["remap-pending"]
    assert bench.ledger.findings == [first]
    assert bench.step() == []
    bench.step(gpu(0, remap_pending=True), gpu(1))
    assert bench.ledger.findings[0].episode != first.episode, "a new fault is a new episode"


def test_a_value_that_is_not_known_neither_opens_nor_closes(bench: Bench) -> None:
    assert bench.step(gpu(0, ecc_uncorrected_total=3)) == ["ecc-uncorrected"]
    assert bench.step(gpu(0, ecc_uncorrected_total=None)) == ["ecc-uncorrected"]
    assert bench.step(polled=False) == ["ecc-uncorrected"]
    assert bench.step(gpu(0)) == []
    assert bench.step(gpu(0, remap_failure=None)) == []


def test_a_lost_gpu_does_not_close_what_was_open_on_it(bench: Bench) -> None:
    bench.step(gpu(0, ecc_uncorrected_total=3))
    lost = GpuReading(uuid="GPU-0", index=0, error_code=15, missing={"*": "GPU is lost"})
    assert bench.step(lost, gpu(1)) == ["gpu-lost", "ecc-uncorrected"]
    assert bench.step(gpu(0), gpu(1)) == []


def test_missing_gpus_are_counted_and_a_lone_one_is_named(bench: Bench) -> None:
    facts = NodeFacts(gpu_count=1, expected_gpus=2, silent_seconds=0.0, missing_gpus=("GPU-1",))
    assert bench.step(gpu(0), facts=facts) == ["gpu-count"]
    (finding,) = bench.ledger.findings
    assert finding.gpu_uuid == "GPU-1"
    assert finding.message == "1 of 2 GPUs are there; missing: GPU-1."
    assert bench.step() == []


def test_a_board_that_was_changed_takes_its_findings_with_it(bench: Bench) -> None:
    bench.step(gpu(0, remap_failure=True), gpu(1), xids=[bench.xid(64)])
    rules = bench.step(gpu(1), facts=NodeFacts(gpu_count=1, expected_gpus=2))
    assert sorted(rules) == ["gpu-count", "remap-failure", "xid-64"]
    assert bench.step(gpu(7), gpu(1)) == []


@pytest.mark.parametrize("code", [79, 48, 119, 64, 92, 999])
def test_an_xid_stays_open_for_ever_without_its_action(bench: Bench, code: int) -> None:
    assert bench.step(xids=[bench.xid(code)]) == [f"xid-{code}"]
    assert bench.step(seconds=30 * 86_400) == [f"xid-{code}"]


@pytest.mark.parametrize("code", [79, 48, 119, 13, 94])
def test_a_new_boot_ends_every_xid(bench: Bench, code: int) -> None:
    bench.step(xids=[bench.xid(code)])
    bench.boot_id = "boot-2"
    assert bench.step() == []


def test_a_reset_shows_in_the_energy_counter(bench: Bench) -> None:
    bench.step(xids=[bench.xid(119)])
    bench.step(gpu(0, energy_joules_total=2_000.0), gpu(1))
    assert bench.step(gpu(0, energy_joules_total=1_999.5), gpu(1)) == ["xid-119"], "rounding"
    assert bench.step(gpu(0, energy_joules_total=12.0), gpu(1)) == []


def test_a_reset_of_another_gpu_ends_nothing(bench: Bench) -> None:
    bench.step(xids=[bench.xid(119)])
    assert bench.step(gpu(0), gpu(1, energy_joules_total=3.0)) == ["xid-119"]


def test_a_reset_does_not_end_what_asks_for_a_restart(bench: Bench) -> None:
    bench.step(xids=[bench.xid(79)])
    assert bench.step(gpu(0, energy_joules_total=3.0), gpu(1)) == ["xid-79"]


def test_the_driver_taking_its_action_back_is_a_reset(bench: Bench) -> None:
    bench.step(xids=[bench.xid(95)])
    assert bench.step(gpu(0, recovery_action=0), gpu(1)) == ["xid-95"], "not seen to be asked yet"
    assert bench.step(gpu(0, recovery_action=1), gpu(1)) == ["xid-95"]
    assert bench.step(gpu(0, recovery_action=0), gpu(1)) == []


def test_an_application_xid_closes_ten_minutes_after_the_last(bench: Bench) -> None:
    bench.step(xids=[bench.xid(13)])
    bench.step(seconds=300)
    bench.step(xids=[bench.xid(13, event="y")])
    (finding,) = bench.ledger.findings
    assert not finding.changes_health
    assert finding.message.endswith("2 times.")
    assert bench.step(seconds=590) == ["xid-13"]
    assert bench.step(seconds=20) == []


def test_a_contained_ecc_error_marks_its_pods_and_ends_with_them(bench: Bench) -> None:
    busy = gpu(0, pod_uids=("pod-a",))
    bench.step(busy, gpu(1))
    bench.step(busy, gpu(1), xids=[bench.xid(94)])
    (finding,) = bench.ledger.findings
    assert (finding.severity, finding.changes_health) == ("critical", False)
    assert finding.pod_uids == ("pod-a",)
    assert bench.step(busy, gpu(1), seconds=3600) == ["xid-94"]
    assert bench.step(gpu(0, pod_uids=("pod-b",)), gpu(1)) == []


def test_a_growing_event_is_one_finding_and_counts_once(bench: Bench) -> None:
    bench.step(xids=[bench.xid(48)])
    episode = bench.ledger.findings[0].episode
    for count in (2, 5, 5, 16):
        bench.step(xids=[bench.xid(48, count=count)])
    (finding,) = bench.ledger.findings
    assert finding.episode == episode
    assert finding.message.endswith("16 times.")


def test_154_follows_the_driver_and_ends_with_none(bench: Bench) -> None:
    bench.step(xids=[bench.xid(154, recovery_action=4)])
    (first,) = bench.ledger.findings
    assert first.severity == "critical"
    bench.step(xids=[bench.xid(154, event="y", recovery_action=2)])
    (second,) = bench.ledger.findings
    assert (second.severity, second.episode == first.episode) == ("fatal", False)
    assert bench.step(xids=[bench.xid(154, event="z", recovery_action=0)]) == []


def test_a_person_closes_a_finding_and_a_level_that_still_holds_opens_anew(bench: Bench) -> None:
    bench.step(gpu(0, remap_failure=True), gpu(1), xids=[bench.xid(79)])
    before = {finding.rule: finding.episode for finding in bench.ledger.findings}
    bench.ledger = close_episodes(bench.ledger, before.values())
    assert bench.step(gpu(0, remap_failure=True), gpu(1)) == ["remap-failure"]
    assert bench.ledger.findings[0].episode not in before.values()


def test_silence_is_a_finding_of_its_own_and_ends_with_the_answer(bench: Bench) -> None:
    silent = NodeFacts(gpu_count=2, expected_gpus=2, silent_seconds=15.0)
    assert bench.step(polled=False, facts=silent) == ["nvml-silent"]
    assert not bench.ledger.findings[0].changes_health
    assert bench.step() == []


def test_a_rule_with_hold_and_keep_times_neither_flaps_open_nor_shut(bench: Bench) -> None:
    slow = Rule(
        name="slow",
        scope="gpu",
        severity="warning",
        conditions=(Condition("temperature_celsius", ">", 80),),
        message="hot",
        action="cool",
        source="a test",
        fires={},
        quiet={},
        hold_seconds=60,
        keep_firing_seconds=30,
    )
    bench.rules = RuleSet(gpu=(slow,))
    hot, cool = gpu(0, temperature_celsius=85.0), gpu(0, temperature_celsius=50.0)
    assert bench.step(hot) == []
    began = bench.now
    assert bench.step(hot, seconds=50) == []
    assert bench.step(cool) == []
    assert bench.step(hot) == []
    assert bench.step(hot, seconds=60) == ["slow"]
    assert bench.ledger.findings[0].since > began
    assert bench.step(cool, seconds=20) == ["slow"]
    assert bench.step(hot) == ["slow"]
    assert bench.step(cool, seconds=29) == ["slow"]
    assert bench.step(cool, seconds=2) == []


def test_a_clock_put_back_an_hour_neither_holds_a_fault_back_nor_keeps_it_open(
    bench: Bench,
) -> None:
    hot, cool = gpu(0, temperature_margin_celsius=3.0), gpu(0, temperature_margin_celsius=20.0)
    assert bench.step(hot) == []
    assert bench.step(hot, seconds=-3600) == []
    assert bench.step(hot, seconds=30) == ["temperature-margin-low"]
    assert bench.step(cool, seconds=-3600) == ["temperature-margin-low"]
    assert bench.step(cool, seconds=60) == []
    bench.step(xids=[bench.xid(13)])
    bench.step(seconds=-3600)
    assert bench.step(seconds=599) == ["xid-13"]
    assert bench.step(seconds=1) == []


def test_a_sticky_rule_ends_with_a_person_alone(bench: Bench) -> None:
    (hot,) = (rule for rule in BUILT_IN.gpu if rule.name == "remap-pending")
    bench.rules = RuleSet(gpu=(dataclasses.replace(hot, sticky=True),))
    assert bench.step(gpu(0, remap_pending=True), gpu(1)) == ["remap-pending"]
    assert bench.step(seconds=86_400) == ["remap-pending"]
    bench.ledger = close_episodes(bench.ledger, bench.ledger.episodes)
    assert bench.step() == []


def test_the_drivers_own_action_takes_the_place_of_the_catalogues(bench: Bench) -> None:
    bench.step(xids=[bench.xid(119)])
    assert bench.ledger.findings[0].action == RESET_GPU
    bench.step(gpu(0, recovery_action=2), gpu(1))
    (finding,) = bench.ledger.findings
    assert (finding.rule, finding.action, finding.severity) == ("xid-119", RESTART_NODE, "fatal")
    assert bench.step(gpu(0, recovery_action=2), gpu(1), seconds=60) == ["xid-119"]
    assert bench.step(gpu(0, recovery_action=0), gpu(1)) == []


def test_an_xid_154_gives_its_action_to_the_xid_that_it_follows(bench: Bench) -> None:
    bench.step(xids=[bench.xid(119), bench.xid(154, event="y", recovery_action=2)])
    assert {finding.action for finding in bench.ledger.findings} == {RESTART_NODE}
    assert {finding.severity for finding in bench.ledger.findings} == {"fatal"}


def test_a_switch_that_is_cool_again_ends_its_heat(bench: Bench) -> None:
    hot = bench.xid(10004, kind="sxid", gpu_uuid=None, pci_bus_id="0000:05:00.0")
    other = bench.xid(10004, event="y", kind="sxid", gpu_uuid=None, pci_bus_id="0000:06:00.0")
    assert bench.step(xids=[hot, other]) == ["sxid-10004", "sxid-10004"]
    cool = bench.xid(10005, event="z", kind="sxid", gpu_uuid=None, pci_bus_id="0000:05:00.0")
    assert bench.step(xids=[cool]) == ["sxid-10004", "sxid-10005"]


def test_the_drivers_action_is_a_finding_where_no_xid_says_why(bench: Bench) -> None:
    assert bench.step(gpu(0, recovery_action=1), gpu(1)) == []
    assert bench.step(gpu(0, recovery_action=1), gpu(1), seconds=10) == ["recovery-reset"]
    # The XID that comes late carries it from here on.
    assert bench.step(gpu(0, recovery_action=1), gpu(1), xids=[bench.xid(95)]) == ["xid-95"]


def test_an_applications_xid_does_not_carry_the_drivers_action(bench: Bench) -> None:
    bench.step(gpu(0, recovery_action=1), gpu(1), xids=[bench.xid(13)])
    rules = bench.step(gpu(0, recovery_action=1), gpu(1), seconds=10)
    assert sorted(rules) == ["recovery-reset", "xid-13"]


@pytest.mark.parametrize("code", [79, 119])
def test_what_comes_back_after_two_restarts_wants_the_hardware_inspected(
    bench: Bench, code: int
) -> None:
    actions = []
    for number in range(3):
        bench.boot_id = f"boot-of-{number}"
        bench.step()
        bench.step(xids=[bench.xid(code, event=f"x{number}")])
        actions.append(bench.ledger.findings[0].action)
    assert INSPECT_HARDWARE not in actions[:2]
    assert actions[2] == INSPECT_HARDWARE
    assert "came back after 2" in bench.ledger.findings[0].message
    bench.step(xids=[bench.xid(code, event="x2", count=3)])
    assert "3 times. It came back after 2" in bench.ledger.findings[0].message
    # A month on, what was is forgotten.
    bench.boot_id = "boot-much-later"
    bench.step(seconds=29 * 86_400)
    bench.step(seconds=29 * 86_400)
    bench.step(xids=[bench.xid(code, event="x9")])
    assert bench.ledger.findings[0].action != INSPECT_HARDWARE


def test_a_contained_error_that_comes_back_is_not_the_hardwares(bench: Bench) -> None:
    for number in range(5):
        bench.boot_id = f"boot-of-{number}"
        bench.step()
        bench.step(xids=[bench.xid(94, event=f"x{number}")])
    assert bench.ledger.findings[0].action != INSPECT_HARDWARE


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["pending", "clear", "unknown", "silent", "poll", "boot"]),
            st.sampled_from([13, 48, 79, 94, 119]),
        ),
        max_size=25,
    )
)
def test_whatever_the_order_an_episode_is_one_fault_and_never_comes_back(
    story: list[str | int],
) -> None:
    bench = Bench()
    bench.step()
    seen: set[str] = set()
    open_before: set[str] = set()
    keys: dict[str, tuple[str, str | None]] = {}
    pending: bool | None = False
    for number, word in enumerate(story):
        xids = [bench.xid(word, event=f"x{number}")] if isinstance(word, int) else []
        pending = {"pending": True, "clear": False, "unknown": None}.get(str(word), pending)
        if word == "boot":
            bench.boot_id = f"boot-{number}"
        bench.step(
            gpu(0, remap_pending=pending), gpu(1), xids=xids, polled=word != "silent", seconds=1
        )
        findings = bench.ledger.findings
        assert len({(f.rule, f.gpu_uuid) for f in findings}) == len(findings), "none doubled"
        now_open = {finding.episode for finding in findings}
        assert not (now_open - open_before) & seen, "an episode that ended never comes back"
        for finding in findings:
            assert keys.setdefault(finding.episode, (finding.rule, finding.gpu_uuid)) == (
                finding.rule,
                finding.gpu_uuid,
            )
        seen |= now_open
        open_before = now_open
        if word != "silent" and pending is not None:
            assert ("remap-pending" in {f.rule for f in findings}) is pending
