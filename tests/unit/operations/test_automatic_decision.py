"""What automatic mode asks for: pure decisions, and a machine that opens, closes, refuses, pauses and restarts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.operations.automatic import (
    ACCEPTED,
    ASKED,
    ENDED,
    LEFT,
    MOST_NODES,
    WAITING,
    WOULD_ACT,
    Ask,
    Decision,
    NodeState,
    OpenFinding,
    Row,
    decide,
    halved,
)
from app.operations.automatic_rules import AutomaticRule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = AutomaticRule("fatal", acts="act", action="drain", severity="fatal", hold_seconds=60)


def finding(episode: str = "e1", node: str = "n1", *, age: float = 120, **more: Any) -> OpenFinding:
    said = {"rule": "xid-79", "severity": "fatal", **more}
    return OpenFinding(episode, node, opened_at=NOW - timedelta(seconds=age), **said)


def decided(
    *findings: OpenFinding,
    rules: tuple[AutomaticRule, ...] = (RULE,),
    nodes: dict[str, NodeState] | None = None,
    rows: dict[tuple[str, str], Row] | None = None,
    standstill: str = "",
    world: str = "now",
) -> Decision:
    known = {one.node: NodeState() for one in findings} if nodes is None else nodes
    return decide(rules, findings, known, rows or {}, standstill=standstill, world=world, now=NOW)


def test_a_finding_that_has_been_open_long_enough_is_asked_about() -> None:
    (ask,) = decided(finding()).asks
    assert ask.wish == {"nodes": ["n1"], "mode": "now"}
    assert decided(finding(age=59)).asks == ()
    assert decided(finding(severity="critical")).asks == ()


def test_quarantine_lets_what_runs_complete_and_a_deadline_is_handed_on() -> None:
    quarantine = msgspec.structs.replace(RULE, action="quarantine")
    assert decided(finding(), rules=(quarantine,)).asks[0].wish["mode"] == "complete"
    deadline = msgspec.structs.replace(RULE, mode="deadline", deadline_seconds=900.0)
    assert decided(finding(), rules=(deadline,)).asks[0].wish == {
        "nodes": ["n1"],
        "mode": "deadline",
        "deadline_seconds": 900.0,
    }


def test_many_nodes_that_fail_at_once_are_one_request() -> None:
    (ask,) = decided(*(finding(f"e{n}", f"n{n:03}") for n in range(200))).asks
    assert len(ask.nodes) == 200
    asks = decided(*(finding(f"e{n}", f"n{n:03}") for n in range(MOST_NODES + 1))).asks
    assert [len(one.nodes) for one in asks] == [MOST_NODES, 1]


def test_a_node_with_two_findings_is_taken_once() -> None:
    decision = decided(finding("e1"), finding("e2", age=90))
    assert [ask.subjects for ask in decision.asks] == [(("e1", "n1"),)]
    asked = {("fatal", "e1"): Row(ASKED)}
    assert decided(finding("e1"), finding("e2", age=90), rows=asked).asks == ()


@pytest.mark.parametrize("state", [ACCEPTED, WOULD_ACT, ENDED, ASKED])
def test_an_episode_that_was_dealt_with_is_never_asked_about_again(state: str) -> None:
    decision = decided(finding(), rows={("fatal", "e1"): Row(state)}, world="another")
    assert decision == Decision()


def test_what_was_refused_waits_until_the_world_has_changed() -> None:
    refused = Row(WAITING, world="now", tried_at=NOW - timedelta(seconds=60))
    assert decided(finding(), rows={("fatal", "e1"): refused}).asks == ()
    assert decided(finding(), rows={("fatal", "e1"): refused}, world="later").asks
    hasty = msgspec.structs.replace(refused, tried_at=NOW - timedelta(seconds=5))
    assert decided(finding(), rows={("fatal", "e1"): hasty}, world="later").asks == ()


def test_a_request_that_one_node_holds_up_is_asked_again_in_halves() -> None:
    assert [halved(n) for n in (200, 3, 2, 1)] == [100, 1, 1, 1]
    rows = {("fatal", f"e{n}"): Row(WAITING, together=2) for n in range(5)}
    asks = decided(*(finding(f"e{n}", f"n{n}") for n in range(5)), rows=rows).asks
    assert [len(ask.nodes) for ask in asks] == [2, 2, 1]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (None, "not known to Kubernetes"),
        (NodeState(heard=False), "not heard"),
        (NodeState(operation_id="op1"), "Operation op1"),
        (NodeState(service="Drained"), "out of service already"),
        (NodeState(service="Under repair"), "Under repair"),
        (NodeState(unschedulable=True), "cordoned by somebody else"),
        (NodeState(uncordoned_at=NOW - timedelta(seconds=1)), "A person put n1 in service"),
    ],
)
def test_a_node_that_is_not_to_be_touched_is_left_with_its_reason(
    node: NodeState | None, said: str
) -> None:
    decision = decided(finding(), nodes={} if node is None else {"n1": node})
    assert decision.asks == ()
    assert said in decision.left[0].reason


def test_a_fault_after_the_uncordon_is_a_new_one() -> None:
    earlier = NodeState(uncordoned_at=NOW - timedelta(seconds=500), service="Probation")
    assert decided(finding(), nodes={"n1": earlier}).asks


def test_while_all_stands_still_everything_is_left_with_the_reason() -> None:
    decision = decided(finding("e1"), finding("e2", "n2"), standstill="Paused by ana.")
    assert decision.asks == ()
    assert [left.reason for left in decision.left] == ["Paused by ana."] * 2


def test_the_first_rule_that_covers_a_finding_has_it() -> None:
    first = AutomaticRule(
        "one", acts="dry-run", action="drain", findings=("xid-79",), hold_seconds=0
    )
    (ask,) = decided(finding(), rules=(first, RULE)).asks
    assert ask.rule.name == "one"
    other = AutomaticRule("b", acts="act", blocks=("b",), hold_seconds=0)
    assert decided(finding(), rules=(other,), nodes={"n1": NodeState(block="a")}) == Decision()


def test_a_reschedule_is_asked_for_once_a_job() -> None:
    rule = msgspec.structs.replace(RULE, action="reschedule")
    nodes = {"n1": NodeState(jobs=("j1",)), "n2": NodeState(jobs=("j1",)), "n3": NodeState()}
    decision = decided(
        finding("e1"), finding("e2", "n2"), finding("e3", "n3"), rules=(rule,), nodes=nodes
    )
    assert [(ask.wish, len(ask.subjects)) for ask in decision.asks] == [({"job": "j1"}, 2)]
    assert "No job runs on n3" in decision.left[0].reason


class AutomaticMachine(RuleBasedStateMachine):
    """Findings open and close, requests are accepted and refused, people pause, uncordon and cordon."""

    NODES = ("n1", "n2", "n3")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.serial = 0
        self.open: dict[str, OpenFinding] = {}
        self.nodes = {name: NodeState() for name in self.NODES}
        self.rows: dict[tuple[str, str], Row] = {}
        self.asked: list[Ask] = []
        self.taken: list[str] = []  # episodes for which an operation was opened
        self.standstill = ""
        self.world = 0

    @rule(node=st.sampled_from(NODES), severity=st.sampled_from(["fatal", "critical"]))
    def fault(self, node: str, severity: str) -> None:
        self.serial += 1
        name = f"e{self.serial}"
        self.open[name] = OpenFinding(name, node, "xid-79", severity, self.now)

    @rule(data=st.data())
    def recover(self, data: st.DataObject) -> None:
        if self.open:
            self.open.pop(data.draw(st.sampled_from(sorted(self.open))))

    @rule(seconds=st.sampled_from([1, 20, 61]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.standstill = "Paused." if paused else ""

    @rule(node=st.sampled_from(NODES), heard=st.booleans())
    def hear(self, node: str, heard: bool) -> None:
        self.nodes[node] = msgspec.structs.replace(self.nodes[node], heard=heard)

    @rule(node=st.sampled_from(NODES))
    def uncordon(self, node: str) -> None:
        self.nodes[node] = msgspec.structs.replace(
            self.nodes[node],
            unschedulable=False,
            operation_id=None,
            service="In service",
            uncordoned_at=self.now,
        )

    @rule(node=st.sampled_from(NODES))
    def cordon(self, node: str) -> None:
        self.nodes[node] = msgspec.structs.replace(self.nodes[node], unschedulable=True)

    @rule()
    def turn(self) -> None:
        decision = decide(
            (RULE,), list(self.open.values()), self.nodes, self.rows,
            standstill=self.standstill, world=str(self.world), now=self.now,
        )  # fmt: skip
        for left in decision.left:
            self.rows[("fatal", left.episode)] = Row(LEFT, left.reason)
        for ask in decision.asks:
            assert not self.standstill
            for episode, node in ask.subjects:
                state = self.nodes[node]
                assert episode in self.open, "an old episode never acts"
                assert self.now - self.open[episode].opened_at >= timedelta(seconds=60)
                assert state.heard
                assert not state.unschedulable
                assert state.operation_id is None
                assert (
                    state.uncordoned_at is None
                    or state.uncordoned_at <= self.open[episode].opened_at
                )
                self.rows[("fatal", episode)] = Row(ASKED)
            self.asked.append(ask)

    @rule(accepted=st.booleans())
    def answer(self, accepted: bool) -> None:
        if not self.asked:
            return
        ask = self.asked.pop(0)
        self.world += 1
        for episode, node in ask.subjects:
            if accepted:
                self.rows[("fatal", episode)] = Row(ACCEPTED)
                self.taken.append(episode)
                self.nodes[node] = msgspec.structs.replace(
                    self.nodes[node], operation_id="op", unschedulable=True, service="Draining"
                )
            else:
                self.rows[("fatal", episode)] = Row(
                    WAITING, world=str(self.world), tried_at=self.now
                )

    @invariant()
    def no_episode_acts_twice(self) -> None:
        assert len(self.taken) == len(set(self.taken))

    @invariant()
    def no_node_is_asked_about_twice_at_once(self) -> None:
        nodes = [node for ask in self.asked for node in ask.nodes]
        assert len(nodes) == len(set(nodes))


TestAutomaticMachine = AutomaticMachine.TestCase
TestAutomaticMachine.settings = hypothesis_settings(
    max_examples=200, stateful_step_count=40, deadline=None
)
