"""When an incident is over, when it is the same one again, and what it cost. And: nothing grave is ever lost."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.incidents import Fault, HurtJob, count_gpus, gpu_hours_lost, group_troubles
from app.incidents.causes import is_meant
from app.incidents.classes import is_grave
from app.incidents.hours import read_job, write_job
from app.incidents.lifetime import (
    Before,
    fate_of,
    holds_open,
    is_flapping,
    is_return,
    keeps_first,
    signature_of,
)
from tests.reports import at
from tests.unit.incidents.world import (
    application,
    crash,
    fault,
    fleet,
    group,
    hang,
    job,
    not_ready,
    pod,
    silent,
    stands,
    world,
)

PORT = "infiniband-port-down"


def port(seconds: float, **fields: Any) -> Fault:
    return fault(rule=PORT, message="mlx5_0 is down", opened_at=at(seconds), **fields)


def ended(*faults: Fault, seconds: float = 100, **fields: Any) -> Before:
    values: dict[str, Any] = {
        "scope": "node",
        "cause": faults[0].rule,
        "signatures": frozenset(signature_of("node", one) for one in faults),
        "ended_at": at(seconds),
        "node": "n1",
        "boot_id": "boot-1",
    }
    return Before(**(values | fields))


@pytest.mark.parametrize(
    ("came", "boot", "same"),
    [
        (port(699), "boot-1", True),
        (port(701), "boot-1", False),
        (port(200), "boot-2", False),
        (port(200, gpu_uuid="GPU-n1-7"), "boot-1", False),
        (fault(rule="nvlink-down", opened_at=at(200)), "boot-1", False),
        (fault(rule="xid-79", severity="fatal", opened_at=at(200)), "boot-1", False),
        (port(200), None, True),
    ],
    ids=["in time", "too late", "new boot", "other GPU", "other rule", "an XID", "boot not known"],
)
def test_only_the_same_level_fault_in_time_on_the_same_boot_is_the_same_incident(
    came: Fault, boot: str | None, same: bool
) -> None:
    (trouble,) = group(came)
    assert is_return(ended(port(0)), trouble, boot) is same


def test_xid_that_comes_back_is_never_the_same_incident() -> None:
    first = fault(rule="xid-79", severity="fatal")
    (trouble,) = group(replace(first, opened_at=at(200), episode="again"))
    assert not is_return(ended(first), trouble, "boot-1")


def test_jobs_trouble_comes_back_on_whatever_node() -> None:
    before = ended(
        crash(node="n1"),
        scope="job",
        signatures=frozenset({signature_of("job", crash())}),
        cause="job-interrupted",
    )
    (trouble,) = group(crash(node="n2", seconds=300))
    assert is_return(before, trouble, "boot-1")


def test_two_returns_within_the_hour_are_flapping() -> None:
    assert not is_flapping([at(3600)], at(3600))
    assert is_flapping([at(100), at(3600)], at(3600))
    assert not is_flapping([at(0), at(3601)], at(3601))


def test_incident_resolves_at_once_unless_it_flaps_or_is_held() -> None:
    def fate(ended_at: Any, now: float, **marks: bool) -> str:
        known = {"flapping": False, "held_open": False} | marks
        return fate_of(ended_at=ended_at, now=at(now), **known)

    assert fate(None, 0) == "resolve"
    assert fate(None, 0, flapping=True) == "wait"
    assert fate(at(0), 599, flapping=True) == "wait"
    assert fate(at(0), 600, flapping=True) == "resolve"
    assert fate(at(0), 9999, held_open=True) == "wait"


def test_what_was_told_to_have_failed_first_stands_unless_something_failed_before() -> None:
    told = {"at": "2026-11-24T12:00:00Z", "rule": "xid-79", "severity": "fatal", "episode": "e1"}
    (later,) = group(fault(rule="xid-74", opened_at=at(5)))
    (before,) = group(fault(rule="xid-74", opened_at=at(-5)))
    (missed,) = group(silent("n1", -5))
    assert keeps_first(told, later)
    assert not keeps_first(told, before)
    assert keeps_first(told, missed)
    assert not keeps_first({}, later)


def test_person_cannot_close_what_still_is() -> None:
    def holds(one: Fault, scope: str = "node", cause: str = "gpu-lost") -> bool:
        return holds_open(one, scope=scope, cause=cause)

    assert holds(fault())
    assert holds(silent("n1", 0))
    assert holds(hang(), "job", "collective-hang")
    assert not holds(fault(rule="xid-79", severity="fatal"))
    hot = fault(rule="temperature-margin-low", severity="warning")
    assert not holds(hot)
    assert holds(hot, "rack", "temperature-margin-low")


def test_gpu_hours_are_gpus_times_how_long_each_job_was_hurt() -> None:
    jobs = [
        HurtJob("j1", "ml", "a", 16, at(0)),
        HurtJob("j2", "ml", "b", 8, at(0), at(1800), (3,), seconds_before=1800.0),
    ]
    documents = [write_job(one) for one in jobs]
    assert gpu_hours_lost(documents, at(7200)) == pytest.approx(16 * 2 + 8 * 1)
    assert [read_job(one) for one in documents] == jobs
    assert count_gpus(jobs) == 16
    assert gpu_hours_lost([{"uid": "j1", "gpus": 16}], at(0)) is None
    assert gpu_hours_lost([], at(0)) is None


_NODES = fleet(racks=4, size=4)
_KINDS = ("silent", "not-ready", "xid", "level", "warning", "application", "hang", "crash", "off")


def _made(kind: str, node: str, seconds: int, uid: str | None) -> Fault:
    values: dict[str, Any] = {"opened_at": at(seconds)}
    match kind:
        case "silent":
            return silent(node, seconds)
        case "not-ready":
            return not_ready(node, seconds)
        case "xid":
            return fault(node, rule="xid-79", severity="fatal", **values)
        case "level":
            return fault(node, rule=PORT, **values)
        case "warning":
            return fault(node, rule="temperature-margin-low", severity="warning", **values)
        case "application":
            return application(node, pod="p0" if uid else None, **values)
        case "hang":
            return hang(uid or "", node, seconds, job_uid=uid)
        case "crash":
            return crash(uid or "", node, seconds, job_uid=uid)
    return fault(node, rule="gpu-count", severity="fatal", gpu_uuid=None, **values)


_FAULTS = st.lists(
    st.builds(
        _made,
        st.sampled_from(_KINDS),
        st.sampled_from(sorted(_NODES)),
        st.integers(0, 900),
        st.sampled_from(["j1", "j2", None]),
    ),
    max_size=30,
    unique_by=lambda one: one.episode,
)


@settings(max_examples=200, deadline=None)
@given(
    early=_FAULTS,
    later=_FAULTS,
    away=st.sets(st.sampled_from(sorted(_NODES)), max_size=3),
    keep=st.integers(0, 2**30),
)
def test_every_grave_fault_is_in_exactly_one_incident_and_no_node_without_one_is_named(
    early: list[Fault], later: list[Fault], away: set[str], keep: int
) -> None:
    nodes = {
        name: replace(fact, planned="upgrade" if name in away else None)
        for name, fact in _NODES.items()
    }
    known: dict[str, Any] = {
        "nodes": nodes,
        "jobs": {"j1": job(), "j2": job("j2", name="other", running_pods=1)},
        "pods": [pod("p0", "r0-n0"), pod("p1", "r1-n1", 1), pod("q0", "r0-n0", job_uid="j2")],
    }
    first = group_troubles(world(*early, **known), at(1000))
    standing = [stands(one) for one in first]
    left = [one for place, one in enumerate(early) if keep >> (place % 30) & 1]
    for faults, open_ones in ((early, []), ([*left, *later], standing)):
        unique = list({one.episode: one for one in faults}.values())
        found = group_troubles(world(*unique, standing=open_ones, **known), at(1010))
        homes = {name: one for one in open_ones for name in one.findings}
        where: dict[str, int] = {}
        for trouble in found:
            assert trouble.roots
            for one in trouble.faults:
                where[one.episode] = where.get(one.episode, 0) + 1
        for one in unique:
            meant = is_meant(one, nodes.get(one.node), homes)
            if is_grave(one):
                assert where.get(one.episode, 0) == (0 if meant else 1), one
            assert where.get(one.episode, 0) <= 1
        # What came of a node's fault may outlast it: its incident is then still of that node.
        troubled = {one.node for one in unique} | {
            one.subject for one in open_ones if one.scope == "node"
        }
        assert {name for trouble in found for name in trouble.nodes} <= troubled
        assert len({trouble.key for trouble in found}) == len(found)
