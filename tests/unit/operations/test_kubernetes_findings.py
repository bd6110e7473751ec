"""What Kubernetes says is wrong becomes findings, incident by incident, through to the node's health."""

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, event, text

from app import worker_kubernetes_findings
from app.errors import SettingsError
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads import fleet
from app.store.writes.bulk import clock
from app.store.writes.central import open_central
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from app.worker import run
from app.worker_kubernetes_findings import KubernetesFindings
from collectors.kubernetes import TopologyLabels, node_facts
from collectors.report import Finding
from collectors.site_rules import load_rules
from k8s.objects import Condition, Node, Pod, Taint
from k8s.view import ClusterView
from tests.reports import gpu, report
from tests.unit.operations.cluster_builders import NOW, at, job, node, pod, stamp, view

CLUSTER = "c"


class Site:
    """A store, the findings that the worker keeps in it, and a cluster that a test sets."""

    def __init__(self, engine: Engine, *objects: object) -> None:
        self.engine = engine
        self.now = NOW
        self.version = 0
        self.seen: ClusterView = view()
        self.settings = Settings(cluster=CLUSTER)
        self.show(*objects)
        with write(engine) as connection:
            store_kubernetes(
                connection,
                CLUSTER,
                changes_between(
                    None,
                    picture_of(
                        node_facts(self.seen, TopologyLabels(block="block", rack="rack")), [], []
                    ),
                ),
                NOW,
            )
        self.start_worker()

    def start_worker(self) -> None:
        self.findings = KubernetesFindings(
            self.engine, settings=self.settings, watcher=self, clock=lambda: self.now
        )

    def view(self) -> ClusterView:
        return self.seen

    def show(self, *objects: object, synced: bool = True) -> None:
        self.version += 1
        self.seen = replace(
            view(*objects, synced=synced), version=self.version, observed_at=self.now
        )

    def pass_time(self, seconds: float, *, heard: bool = True) -> None:
        """Ticks each 2 s for so long."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(self.now + timedelta(seconds=2), end)
            if heard:
                self.seen = replace(self.seen, observed_at=self.now)
            self.findings.tick()

    def report(self, name: str = "a", *, gpus: int = 8, findings: Iterable[Finding] = ()) -> None:
        seconds = (self.now - NOW).total_seconds()
        one = report(
            name,
            sequence=int(seconds) + 1,
            gpus=[gpu(f"{name}-{index}", index=index) for index in range(gpus)],
            findings=list(findings),
        )
        one = msgspec.structs.replace(one, observed_at=self.now)
        with write(self.engine) as connection:
            store_reports(connection, CLUSTER, [one], self.now)

    @property
    def open(self) -> list[tuple[str, str, str]]:
        """(rule, node, subject) of what is open."""
        with read(self.engine) as connection:
            found = open_central(connection, CLUSTER, "kubernetes")
        return sorted((rule, where, subject) for rule, where, _, subject in (o.key for o in found))

    def rows(self) -> list[Any]:
        with read(self.engine) as connection:
            return list(
                connection.execute(
                    text("SELECT * FROM finding WHERE source = 'kubernetes' ORDER BY opened_at")
                )
            )

    def health(self, name: str = "a") -> tuple[str, str]:
        found = fleet.node(self.engine, CLUSTER, name)
        assert found is not None
        return found.health, found.health_reason


def saying(one: Node, *conditions: Condition, taints: tuple[Taint, ...] = ()) -> Node:
    """The node with these conditions in place of those of the same types."""
    types = {condition.type for condition in conditions}
    kept = [known for known in one.status.conditions if known.type not in types]
    status = msgspec.structs.replace(one.status, conditions=(*kept, *conditions))
    spec = msgspec.structs.replace(one.spec, taints=taints)
    return msgspec.structs.replace(one, status=status, spec=spec)


def not_ready(name: str = "a", since: datetime = NOW) -> Node:
    silent = Condition(
        "Ready",
        "Unknown",
        "NodeStatusUnknown",
        "Kubelet stopped posting.",
        last_transition_time=since,
    )
    return saying(node(name), silent)


def with_gpus(one: Node, *, capacity: int, allocatable: int) -> Node:
    status = msgspec.structs.replace(
        one.status,
        capacity={"nvidia.com/gpu": str(capacity)},
        allocatable={"nvidia.com/gpu": str(allocatable)},
    )
    return msgspec.structs.replace(one, status=status)


def test_a_node_that_is_not_ready_is_failing_while_its_agent_calls_it_healthy(
    engine: Engine,
) -> None:
    site = Site(engine, node("a"), node("b"))
    site.report()
    site.pass_time(4)
    assert site.health()[0] == "Healthy"
    site.show(not_ready(since=site.now), node("b"))
    site.pass_time(8)
    assert site.open == []
    site.report()
    site.pass_time(4)
    assert site.open == [("node-not-ready", "a", "Ready")]
    health, reason = site.health()
    assert (health, "since 2026-07-01 12:00:04 UTC" in reason) == ("Failing", True)
    assert "NodeStatusUnknown: Kubelet stopped posting." in reason
    site.report()
    assert site.health()[0] == "Failing"
    assert site.health("b")[0] == "Unknown"
    site.show(node("a"), node("b"))
    site.pass_time(2)
    assert (site.open, site.health()[0]) == ([], "Healthy")


def test_a_blink_shorter_than_the_hold_time_is_no_finding(engine: Engine) -> None:
    site = Site(engine, not_ready())
    site.pass_time(8)
    site.show(node("a"))
    site.pass_time(2)
    site.show(not_ready())
    site.pass_time(8)
    assert site.rows() == []


def test_a_worker_that_starts_goes_on_with_the_episode_that_is_open(engine: Engine) -> None:
    site = Site(engine, not_ready())
    site.pass_time(14)
    (before,) = site.rows()
    site.start_worker()
    site.pass_time(60)
    (after,) = site.rows()
    assert (after.episode, after.closed_at) == (before.episode, None)
    site.findings.forget()
    site.show(node("a"))
    site.pass_time(2)
    (closed,) = site.rows()
    assert closed.closed_at is not None


def test_while_kubernetes_is_not_heard_nothing_opens_or_closes(engine: Engine) -> None:
    site = Site(engine, not_ready(), node("b"))
    site.pass_time(14)
    opened = site.open
    site.show(node("a"), not_ready("b"), synced=False)
    site.pass_time(60)
    assert site.open == opened == [("node-not-ready", "a", "Ready")]
    site.show(node("a"), not_ready("b"))
    site.now += timedelta(seconds=60)
    site.pass_time(30, heard=False)
    assert site.open == opened
    site.pass_time(12)
    assert site.open == [("node-not-ready", "b", "Ready")]


def test_what_is_away_on_purpose_is_not_called_not_ready(engine: Engine) -> None:
    site = Site(engine, node("a"))
    with write(engine) as connection:
        connection.execute(text("UPDATE node SET planned = 'driver upgrade: x' WHERE name = 'a'"))
    site.show(not_ready())
    site.pass_time(120)
    assert site.open == []
    with write(engine) as connection:
        connection.execute(text("UPDATE node SET planned = NULL"))
    site.pass_time(20)
    assert site.open == [("node-not-ready", "a", "Ready")]


def test_allocatable_below_capacity_opens_after_its_hold_time_and_changes_no_health(
    engine: Engine,
) -> None:
    site = Site(engine, node("a"))
    site.report()
    site.show(with_gpus(node("a"), capacity=8, allocatable=7))
    site.pass_time(118)
    assert site.open == []
    site.pass_time(4)
    assert site.open == [("allocatable-below-capacity", "a", "")]
    assert site.health()[0] == "Healthy"
    site.show(node("a"))
    site.pass_time(2)
    assert site.open == []


def test_capacity_below_nvml_needs_the_agents_count(engine: Engine) -> None:
    site = Site(engine, with_gpus(node("a"), capacity=7, allocatable=7))
    site.pass_time(200)
    assert site.open == []
    site.report()
    site.pass_time(130)
    assert site.open == [("capacity-below-nvml", "a", "")]
    # The agent falls silent: its count is not known any more, so this neither opens nor closes.
    with write(engine) as connection:
        connection.execute(text("UPDATE node SET reported_health = 'Unknown'"))
    site.show(node("a"))
    site.pass_time(20)
    assert site.open == [("capacity-below-nvml", "a", "")]
    site.report()
    site.pass_time(20)
    assert site.open == []


def test_gpus_that_are_offered_in_parts_are_not_counted_against_nvml(engine: Engine) -> None:
    shared = node("a")
    parts: dict[str, str | int] = {"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb": "56"}
    status = msgspec.structs.replace(shared.status, capacity=parts, allocatable=parts)
    site = Site(engine, msgspec.structs.replace(shared, status=status))
    site.report()
    site.pass_time(200)
    assert site.open == []


def test_ready_with_a_fatal_gpu_until_somebody_cordons_the_node(engine: Engine) -> None:
    site = Site(engine, node("a"))
    fatal = Finding(
        episode="e1",
        rule="gpu-lost",
        severity="fatal",
        message="GPU 3 is lost",
        action="restart",
        since=NOW,
        gpu_uuid="a-3",
    )
    site.report(findings=[fatal])
    site.pass_time(130)
    assert site.open == [("ready-with-fatal-gpu", "a", "")]
    (row,) = site.rows()
    assert (row.message.count("1 of its GPUs"), bool(row.changes_health)) == (1, False)
    site.show(node("a", cordoned=True))
    site.pass_time(2)
    assert site.open == []


def test_a_node_that_leaves_takes_its_findings_with_it(engine: Engine) -> None:
    site = Site(engine, not_ready(), node("b"))
    site.pass_time(14)
    site.show(node("b"))
    site.pass_time(2)
    assert site.open == []


def test_a_finding_that_somebody_closed_opens_again_while_it_still_holds(engine: Engine) -> None:
    site = Site(engine, not_ready())
    site.pass_time(14)
    with write(engine) as connection:
        connection.execute(text("UPDATE finding SET closed_at = opened_at, closed_by = 'ada'"))
    site.pass_time(40)
    assert site.open == [("node-not-ready", "a", "Ready")]
    assert len(site.rows()) == 2


def test_a_store_that_fails_once_is_told_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(engine, not_ready())
    site.pass_time(8)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(worker_kubernetes_findings, "fold_central", refuse)
        with pytest.raises(OSError, match="disk full"):
            site.pass_time(4)
    site.pass_time(2)
    assert site.open == [("node-not-ready", "a", "Ready")]


# --- interrupted gangs ------------------------------------------------------------------------


def ended(
    name: str,
    where: str,
    rank: int,
    *,
    seconds: float,
    code: int = 1,
    asked: str | None = None,
) -> Pod:
    """A rank of job llm whose container ended so many seconds after NOW."""
    one = pod(name, where, rank=rank, phase="Failed", ready=False)
    raw = msgspec.to_builtins(one.status, str_keys=True)
    raw["containerStatuses"] = [
        {
            "name": "train",
            "state": {
                "terminated": {
                    "exitCode": code,
                    "reason": "Error",
                    "finishedAt": stamp(at(seconds)),
                }
            },
        }
    ]
    if asked:
        raw["conditions"] = [
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": asked,
                "lastTransitionTime": stamp(at(seconds - 1)),
            }
        ]
    return msgspec.structs.replace(one, status=msgspec.convert(raw, type(one.status)))


def test_a_gang_that_crashes_is_one_finding_that_names_the_first_rank(engine: Engine) -> None:
    site = Site(engine, node("a"), node("b"))
    gang = job(ranks=3)
    whole = [pod("p0", "a", rank=0), pod("p1", "b", rank=1), pod("p2", "b", rank=2)]
    site.show(node("a"), node("b"), gang, *whole)
    site.pass_time(10)
    # The peer's kubelet is the quicker to tell.
    site.show(node("a"), node("b"), gang, ended("p0", "a", 0, seconds=10), *whole[1:])
    site.pass_time(2)
    site.show(
        node("a"),
        node("b"),
        gang,
        ended("p0", "a", 0, seconds=10),
        ended("p1", "b", 1, seconds=5, code=139),
        whole[2],
    )
    site.pass_time(14)
    assert site.open == [("job-interrupted", "b", "job-llm")]
    (row,) = site.rows()
    assert row.message == (
        "2 of 3 ranks of team-a/llm ended; the first was rank 1 on b at 12:00:05 UTC "
        "with exit code 139 (Error)."
    )
    assert (row.job_uid, row.rank, row.pod_uids) == ("job-llm", 1, "pod-p1")
    assert site.health("b")[0] == "Unknown", "it changes nothing about the node"
    # The ranks come back; the finding stays for ten minutes after the last that ended.
    site.show(node("a"), node("b"), gang, *whole)
    site.pass_time(500)
    site.start_worker()
    site.pass_time(80)
    assert len(site.open) == 1
    # A worker that starts after the pods are gone counts from when it was told last.
    site.pass_time(20)
    assert site.open == []
    site.show(node("a"), node("b"), gang, ended("q0", "a", 0, seconds=625), whole[1])
    site.pass_time(14)
    assert [(row.node, row.closed_at is None) for row in site.rows()] == [("b", False), ("a", True)]


def test_a_restart_does_not_double_an_interruption(engine: Engine) -> None:
    site = Site(engine, node("a"))
    crashed = (node("a"), job(), ended("p0", "a", 0, seconds=0), pod("p1", "b", rank=1))
    site.show(*crashed)
    site.pass_time(14)
    site.start_worker()
    site.pass_time(60)
    assert len(site.rows()) == 1


def test_ranks_that_had_ended_long_before_the_worker_started_are_no_news(engine: Engine) -> None:
    site = Site(engine, node("a"))
    site.show(node("a"), job(), ended("p0", "a", 0, seconds=-700))
    site.pass_time(60)
    assert site.rows() == []


def test_a_rank_whose_nodes_clock_is_an_hour_behind_is_news_when_it_ends(engine: Engine) -> None:
    site = Site(engine, node("a"))
    site.show(node("a"), job(), pod("p0", "a", rank=0))
    site.pass_time(10)
    site.show(node("a"), job(), ended("p0", "a", 0, seconds=-3600))
    site.pass_time(14)
    assert site.open == [("job-interrupted", "a", "job-llm")]


@pytest.mark.parametrize("case", ["evicted", "deleted", "suspended", "operation", "not a gang"])
def test_ends_that_somebody_asked_for_are_no_interruption(engine: Engine, case: str) -> None:
    site = Site(engine, node("a"), node("b"))
    first, peer = ended("p0", "a", 0, seconds=4), ended("p1", "b", 1, seconds=9)
    gang = job()
    objects: list[object] = [first, peer]
    if case == "evicted":
        objects = [ended("p0", "a", 0, seconds=4, asked="EvictionByEvictionAPI"), peer]
    elif case == "deleted":
        objects = [pod("p0", "a", rank=0, deleted_at=at(33), grace_seconds=30), peer]
    elif case == "suspended":
        gang = suspended_at(job(suspended=True), 3)
    elif case == "not a gang":
        gang = job(gang=False)
    else:
        with write(engine) as connection:
            connection.execute(
                text(
                    "INSERT INTO operation (id, cluster, kind, subject, mode, options, author, reason, "
                    "plan, plan_hash, state, message, choices, memory, nodes_state, workloads_state, "
                    "pods_total, pods_done, created_at, updated_at) VALUES ('o', 'c', 'drain', 'a', "
                    "'now', '{}', 'ada', '', :plan, '', 'Running', '', '[]', '{}', '{}', '{}', 0, 0, "
                    ":at, :at)"
                ),
                {"plan": '{"jobs": [{"uid": "job-llm"}]}', "at": stored(engine, at(1))},
            )
    site.pass_time(10)
    site.show(node("a"), node("b"), gang, *objects)
    site.pass_time(60)
    # What made them end is gone from the cluster; they still are no news.
    site.show(node("a"), node("b"), job(gang=case != "not a gang"), peer)
    site.pass_time(60)
    assert site.rows() == []


def suspended_at(one: Any, seconds: float) -> Any:
    told = Condition("Suspended", "True", last_transition_time=at(seconds))
    status = msgspec.structs.replace(one.status, conditions=(told,))
    return msgspec.structs.replace(one, status=status)


def stored(engine: Engine, moment: datetime) -> Any:
    with read(engine) as connection:
        return clock(connection)(moment)


def test_what_is_deleted_after_a_crash_hides_no_crash(engine: Engine) -> None:
    site = Site(engine, node("a"), node("b"))
    crash = ended("p0", "a", 0, seconds=4)
    killed = pod("p1", "b", rank=1, deleted_at=at(34), grace_seconds=30)
    site.show(node("a"), node("b"), job(), crash, killed)
    site.pass_time(20)
    assert site.open == [("job-interrupted", "a", "job-llm")]


def test_a_sites_threshold_holds_for_what_the_worker_judges(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        "[rules.node-not-ready]\nhold_seconds = 60\n[rules.node-pressure]\nenabled = false\n"
    )
    pressure = Condition("MemoryPressure", "True", last_transition_time=NOW)
    site = Site(engine, not_ready(), saying(node("b"), pressure))
    site.findings = KubernetesFindings(
        engine,
        settings=site.settings,
        watcher=site,
        clock=lambda: site.now,
        rules=load_rules(path),
    )
    site.pass_time(58)
    assert site.open == []
    site.pass_time(6)
    assert site.open == [("node-not-ready", "a", "Ready")]


def test_a_worker_says_at_its_start_which_entry_of_the_rules_cannot_be_used(
    store_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[rules.node-not-ready]\nhold_seconds = -1\n")
    with pytest.raises(SettingsError, match=r"node-not-ready.*hold_seconds"):
        run(Settings(store_url=store_url, rules=path))


def test_nothing_is_read_or_written_while_nothing_changes(engine: Engine) -> None:
    site = Site(engine, *(node(f"n{number}") for number in range(2000)))
    site.pass_time(2)
    statements: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    began = time.process_time()
    site.pass_time(2)
    seconds = time.process_time() - began
    event.remove(engine, "before_cursor_execute", count)
    assert statements == []
    assert seconds < 0.03
