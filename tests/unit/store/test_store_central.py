"""What is found centrally opens, changes and closes findings, and with the node's reports makes its health."""

from collections.abc import Collection

from sqlalchemy import Engine

from app.store.engine import read, write
from app.store.reads import fleet
from app.store.vectors import unpack
from app.store.writes.aging import age_nodes
from app.store.writes.central import CentralChanges, Key, fold_central, open_central
from app.store.writes.reports import store_reports
from collectors.central import CentralFinding
from collectors.report import Report
from tests.reports import at, finding, report


def not_ready(node: str = "n1", **fields: object) -> CentralFinding:
    values: dict = {
        "rule": "node-not-ready",
        "node": node,
        "severity": "critical",
        "message": f"{node} is NotReady",
        "action": "look at the kubelet",
        "since": at(5),
        "subject": "Ready",
    }
    return CentralFinding(**(values | fields))


def store(engine: Engine, *reports: Report, now: float, source: str = "agent") -> None:
    with write(engine) as connection:
        store_reports(connection, "c", list(reports), at(now), source=source)


def fold(
    engine: Engine,
    *findings: CentralFinding,
    now: float,
    source: str = "kubernetes",
    kept: Collection[Key] = (),
) -> CentralChanges:
    with write(engine) as connection:
        return fold_central(connection, "c", source, findings, at(now), kept=kept)


def health(engine: Engine, node: str = "n1") -> str:
    found = fleet.node(engine, "c", node)
    assert found is not None
    return found.health


def test_node_that_reports_well_is_failing_while_kubernetes_calls_it_not_ready(
    engine: Engine,
) -> None:
    store(engine, report(sequence=1), now=2)
    changes = fold(engine, not_ready(), now=20)
    assert (len(changes.opened), changes.nodes, health(engine)) == (1, ["n1"], "Failing")
    store(engine, report(sequence=30), now=30)
    assert health(engine) == "Failing"
    fold(engine, now=40)
    assert health(engine) == "Healthy"


def test_said_again_is_the_same_episode_and_writes_nothing(engine: Engine) -> None:
    store(engine, report(sequence=1), now=2)
    fold(engine, not_ready(), now=20)
    again = fold(engine, not_ready(), not_ready(since=at(21)), now=22)
    assert (again.opened, again.closed, again.nodes) == ([], [], [])
    with read(engine) as connection:
        (one,) = open_central(connection, "c", "kubernetes")
    assert (one.key, one.opened_at) == (("node-not-ready", "n1", "", "Ready"), at(5))


def test_what_is_not_known_now_neither_opens_nor_closes(engine: Engine) -> None:
    store(engine, report(sequence=1), now=2)
    fold(engine, not_ready(), now=20)
    assert fold(engine, now=30, kept={not_ready().key}).closed == []
    assert health(engine) == "Failing"


def test_sources_do_not_close_each_other(engine: Engine) -> None:
    store(engine, report(sequence=1, findings=[finding()]), now=2)
    fold(engine, not_ready(), now=20)
    fold(engine, now=21, source="training")
    store(engine, report(sequence=30), now=30)
    assert [one.rule for one in fleet.findings_of_node(engine, "c", "n1")] == ["node-not-ready"]


def test_finding_that_changes_no_health_changes_none(engine: Engine) -> None:
    store(engine, report(sequence=1), now=2)
    assert fold(engine, not_ready(changes_health=False), now=20).nodes == []
    assert health(engine) == "Healthy"


def test_silent_node_that_is_not_ready_is_failing_in_the_frames_too(engine: Engine) -> None:
    store(engine, report(sequence=1), report("n2", sequence=1), now=2)
    fold(engine, not_ready(), now=20)
    with write(engine) as connection:
        assert age_nodes(connection, "c", at(60)) == ["n1", "n2"]
        assert age_nodes(connection, "c", at(62)) == []
    assert (health(engine), health(engine, "n2")) == ("Failing", "Unknown")
    frame = fleet.frame(engine, "c", "node_state")
    assert frame is not None
    assert [code & 3 for code in unpack(frame.data)] == [2, 3]
    fold(engine, now=70)
    assert health(engine) == "Unknown"


def test_agent_takes_a_node_over_from_dcgm(engine: Engine) -> None:
    store(engine, report(sequence=1, findings=[finding("d1")]), now=2, source="dcgm")
    assert health(engine) == "Failing"
    store(engine, report(sequence=20, spool_id="agents"), now=20)
    assert fleet.findings_of_node(engine, "c", "n1") == []
    assert health(engine) == "Healthy"


def test_finding_without_a_node_opens_all_the_same(engine: Engine) -> None:
    hang = not_ready("", rule="collective-hang", subject="j1", job_uid="j1", changes_health=False)
    assert len(fold(engine, hang, now=9, source="training").opened) == 1
    assert len(fold(engine, now=10, source="training").closed) == 1


def test_node_says_its_reason_as_the_finding_says_it_now(engine: Engine) -> None:
    store(engine, report(sequence=1), now=2)
    fold(engine, not_ready(), now=20)
    fold(engine, not_ready(message="n1 is NotReady: the kubelet is silent"), now=22)
    found = fleet.node(engine, "c", "n1")
    assert found is not None
    assert found.health_reason == "n1 is NotReady: the kubelet is silent"
