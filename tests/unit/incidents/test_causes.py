"""The first failure is told from what followed it; a job's crash hangs under what killed it."""

import time
from dataclasses import replace
from typing import Any

import pytest

from app.incidents import HurtJob, NodeFact
from app.incidents.classes import APPLICATION_RULES
from collectors.xid import find_entry
from tests.reports import at
from tests.unit.incidents.world import (
    application,
    crash,
    fault,
    group,
    hang,
    job,
    keys,
    not_ready,
    pod,
    silent,
    stands,
)


def xid(code: int, seconds: float, *, severity: str = "fatal", **fields: Any) -> Any:
    values = {"rule": f"xid-{code}", "xid": code, "severity": severity, "opened_at": at(seconds)}
    return fault(**(values | {"message": f"XID {code} on GPU 0"} | fields))


def test_no_trouble_is_no_incident_and_neither_is_a_warning_alone() -> None:
    assert group() == []
    assert group(fault(severity="warning")) == []


def test_storm_of_xids_on_a_node_is_one_incident_caused_by_the_first() -> None:
    storm = [xid(74, 1, severity="critical"), xid(79, 2), xid(154, 2.5, severity="fatal")]
    storm += [application(code=code, opened_at=at(3), pod=None) for code in (45, 13, 31)]
    storm += [fault(rule="nvlink-replay", severity="warning", opened_at=at(4))]
    (found,) = group(*reversed(storm))
    assert (found.key, found.cause, found.severity) == (("node", "n1"), "xid-74", "fatal")
    assert found.title == "n1: XID 74 on GPU 0"
    assert len(found.faults) == len(storm)
    assert {one.rule for one in found.followed} == {"xid-45", "xid-13", "xid-31", "nvlink-replay"}


def test_of_two_failures_at_one_time_the_graver_is_the_first() -> None:
    (found,) = group(xid(48, 0, severity="critical"), xid(95, 0))
    assert found.cause == "xid-95"


def test_hardware_is_the_cause_of_an_absence_that_was_noticed_before() -> None:
    (found,) = group(silent("n1", 0), not_ready("n1", 10), xid(79, 20))
    assert (found.cause, found.first.rule) == ("xid-79", "xid-79")
    (found,) = group(silent("n1", 0), xid(79, 500))
    assert found.cause == "silent", "what failed minutes later did not cause it"


def test_derived_signs_are_the_first_failure_only_where_nothing_else_is() -> None:
    count = fault(rule="gpu-count", severity="fatal", message="7 of 8 GPUs", opened_at=at(-3))
    (found,) = group(count, xid(79, 0))
    assert found.cause == "xid-79"
    (found,) = group(count)
    assert found.cause == "gpu-count"


def test_action_is_that_of_the_gravest_fault() -> None:
    (found,) = group(
        xid(74, 0, severity="critical", action="reset the GPU"),
        xid(79, 1, action="restart the node"),
    )
    assert found.action == "restart the node"


def test_node_hurts_the_whole_gang_that_has_a_rank_on_it() -> None:
    (found,) = group(xid(79, 0))
    (hurt,) = found.jobs
    assert (hurt.said, hurt.gpus, hurt.since, hurt.ranks) == ("ml/train", 16, at(0), (0,))


def test_gpu_with_a_pod_hurts_that_pods_job_and_not_its_neighbour() -> None:
    pods = [pod("p0", gpus=4), pod("q0", gpus=4, job_uid="j2")]
    jobs = {"j1": job(gang=False), "j2": job("j2", name="other", gang=False)}
    (found,) = group(xid(79, 0, pod_uids=("q0",)), pods=pods, jobs=jobs)
    assert [(one.name, one.gpus) for one in found.jobs] == [("other", 4)]
    (found,) = group(xid(79, 0), pods=pods, jobs=jobs)
    assert sorted(one.name for one in found.jobs) == ["other", "train"]


def test_nccl_crash_told_three_seconds_before_the_xid_hangs_under_the_gpu() -> None:
    died = crash(node="n2", seconds=-3, rank=1)
    (alone,) = group(died)
    assert (alone.key, alone.cause) == (("job", "j1"), "job-interrupted")
    (found,) = group(died, xid(79, 0), standing=[stands(alone)])
    assert (found.key, found.cause) == (("node", "n1"), "xid-79")
    assert died in found.faults[1:]
    assert found.nodes == ("n1",), "a rank that crashed elsewhere accuses no node"


def test_job_whose_pods_are_gone_by_the_time_the_xid_is_told_is_still_explained() -> None:
    left = pod("p0", until=at(2))
    broken = job(state="Pending", running_pods=0)
    (found,) = group(crash(node="n2"), xid(79, 1), pods=[left], jobs={"j1": broken})
    assert found.key == ("node", "n1")
    assert [one.uid for one in found.jobs] == ["j1"]


@pytest.mark.parametrize(("seconds", "explained"), [(-119, 1), (-121, 2), (599, 1), (601, 2)])
def test_crash_is_explained_only_in_the_time_in_which_consequences_show(
    seconds: float, explained: int
) -> None:
    assert len(group(crash(node="n2", seconds=seconds), xid(79, 0))) == explained


def test_hang_that_nothing_explains_is_the_jobs_own_incident_with_its_suspect() -> None:
    suspect = fault("n2", rule="clock-locked-low", severity="warning", message="GPU 3 runs slow")
    (found,) = group(hang(node="n2", gpu_uuid="GPU-n2-3"), crash(seconds=30), suspect)
    assert (found.key, found.cause, found.severity) == (
        ("job", "j1"),
        "collective-hang",
        "critical",
    )
    assert found.title == "ml/train: all ranks wait for rank 3"
    assert found.jobs[0].gpus == 16
    assert "also open there: n2: GPU 3 runs slow" in [one.text for one in found.evidence]


def test_application_that_crashes_is_one_incident_of_its_job_and_asks_for_no_drain() -> None:
    codes = [application(opened_at=at(n), gpu_uuid=f"GPU-n1-{n % 8}") for n in range(16)]
    (found,) = group(*codes, application(code=43, opened_at=at(17)))
    assert (found.key, found.severity, found.cause) == (("job", "j1"), "warning", "xid-13")
    assert found.action.startswith("restart the application")
    assert len(found.faults) == 17


def test_application_of_an_unknown_pod_is_the_nodes_and_hurts_nobody() -> None:
    (found,) = group(application(pod=None))
    assert (found.key, found.severity, found.jobs) == (("node", "n1"), "warning", ())
    assert group(application(code=43, pod=None)) == [], "a channel reset alone is none"


def test_application_incident_of_a_node_goes_on_as_itself() -> None:
    first = application(pod=None)
    (found,) = group(first)
    assert keys(group(first, standing=[stands(found)])) == [("node", "n1")]


def test_contained_memory_error_hurts_only_its_pods_job() -> None:
    pods = [pod("p0", gpus=4), pod("q0", gpus=4, job_uid="j2")]
    jobs = {"j1": job(), "j2": job("j2", name="other")}
    contained = xid(94, 0, severity="critical", changes_health=False, pod_uids=("q0",))
    (found,) = group(contained, pods=pods, jobs=jobs)
    assert (found.key, [one.name for one in found.jobs]) == (("node", "n1"), ["other"])


def test_disagreement_of_sources_is_no_incident_but_told_with_one() -> None:
    differs = fault(rule="ready-with-fatal-gpu", severity="warning", changes_health=False)
    assert group(differs) == []
    (found,) = group(xid(79, 0), differs)
    assert found.followed == (differs,)


def test_job_is_hurt_until_it_runs_whole_elsewhere_or_has_ended() -> None:
    lost = xid(79, 0)
    (found,) = group(lost)
    before = stands(found)
    moved = [pod("p1", "n2", 1), pod("p9", "n3", 0)]
    away = job(state="Suspended", running_pods=0)
    (found,) = group(lost, standing=[before], pods=[], jobs={"j1": away})
    assert found.jobs[0].until is None
    (found,) = group(lost, standing=[before], pods=moved[:0], jobs={"j1": job()}, now=900)
    assert found.jobs[0].until == at(900)
    ended = job(state="Failed", finished_at=at(700))
    (found,) = group(lost, standing=[before], pods=[], jobs={"j1": ended}, now=900)
    assert found.jobs[0].until == at(700)


def test_job_that_comes_back_to_the_node_is_hurt_once_more() -> None:
    known = HurtJob("j1", "ml", "train", 16, at(0), at(100), (0,))
    lost = xid(79, 0)
    (first,) = group(lost)
    again = pod("p9", since=at(400))
    (found,) = group(lost, standing=[stands(first, jobs=(known,))], pods=[again])
    (hurt,) = found.jobs
    assert (hurt.since, hurt.until, hurt.seconds_before) == (at(400), None, 100.0)


def test_interrupted_job_that_is_back_keeps_nothing_open_but_its_own() -> None:
    lost, died = xid(79, 0), crash(seconds=2)
    (found,) = group(lost, died, jobs={"j1": job(running_pods=1)})
    open_one = stands(found)
    (still,) = group(died, standing=[open_one], jobs={"j1": job(running_pods=1)})
    assert still.key == ("node", "n1"), "the job is not back: what hurt it is not over"
    assert group(died, standing=[open_one]) == []
    assert group(died, told=open_one.findings) == []


def test_what_cannot_be_known_is_part_of_the_evidence() -> None:
    unheard = {"n1": NodeFact("n1", kubernetes_ready=None)}
    (found,) = group(
        xid(79, 0), silent("n1", 5), nodes=unheard, blind=("Kubernetes was not heard",)
    )
    texts = [one.text for one in found.evidence]
    assert "what n1 does since 12:00:05 UTC is not known: it does not report" in texts
    assert "Kubernetes has not spoken of n1: which pods it ran is not known" in texts
    assert "Kubernetes was not heard" in texts


def test_application_codes_are_those_of_the_catalogue() -> None:
    codes = {code for code in range(1, 200) if find_entry(code).group == "application"}
    unlike = {code for code in range(1, 200) if not find_entry(code).changes_health} - {94}
    named = {int(rule.removeprefix("xid-")) for rule in APPLICATION_RULES}
    assert codes <= named
    assert {code for code in unlike if find_entry(code).severity == "warning"} <= named


def test_storm_of_ten_thousand_findings_on_200_nodes_is_grouped_in_half_a_second() -> None:
    nodes = {f"n{number}": NodeFact(f"n{number}", places={"rack": f"r{number // 10}"}) for number in range(200)}  # fmt: skip
    storm = [
        xid(code, number % 60, node=name, episode=f"{name}-{code}-{number}")
        for name in nodes
        for number in range(10)
        for code in (74, 79, 95)
    ]
    storm += [
        replace(application(name, opened_at=at(number), pod=None), episode=f"a-{name}-{number}")
        for name in nodes
        for number in range(20)
    ]
    assert len(storm) == 10_000
    began = time.perf_counter()
    found = group(*storm, nodes=nodes)
    spent = time.perf_counter() - began
    assert len(found) == 200
    assert spent < 0.5, f"{spent:.2f} s"
