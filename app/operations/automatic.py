"""What automatic mode asks for now. Pure: findings that have been open long enough, on nodes that may be taken.

It asks as anybody does, by requests: limits, protection, capacity and rights are judged where those are
answered. It acts once on an episode of a finding and never on one whose node somebody else has in hand.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from app.operations.automatic_rules import AutomaticRule
from app.operations.modes import COMPLETE

LEFT, WAITING, ASKED = "left", "waiting", "asked"
"""Not done yet: left alone for a reason of the node; refused and tried again when the world has changed; asked."""

ACCEPTED, WOULD_ACT, ENDED = "accepted", "would_act", "ended"
"""Done with: an operation was opened; a dry-run's plan is kept; the finding ended before anything was done."""

FINAL = frozenset({ACCEPTED, WOULD_ACT, ENDED})
IN_SERVICE = frozenset({"In service", "Probation"})

RETRY = timedelta(seconds=15)
"""What was refused is asked for again no sooner, however fast the world changes. Our judgement."""

MOST_NODES = 200
"""Nodes in one request of automatic mode; the rest follow in the next."""


class OpenFinding(msgspec.Struct, frozen=True):
    """A finding that is open now, of one episode."""

    episode: str
    node: str
    rule: str
    severity: str
    opened_at: datetime


class NodeState(msgspec.Struct, frozen=True):
    """A node as the store knows it. heard: whether its reports come; uncordoned_at: when a person last put it in service.
    jobs: UIDs of the jobs with a pod there.
    """

    block: str = ""
    heard: bool = True
    service: str = "In service"
    unschedulable: bool = False
    operation_id: str | None = None
    uncordoned_at: datetime | None = None
    jobs: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """What is remembered of a rule and an episode. world: what it was when it was refused; together: nodes a request."""

    state: str
    reason: str = ""
    world: str = ""
    together: int = MOST_NODES
    tried_at: datetime | None = None


class Ask(msgspec.Struct, frozen=True):
    """A request to write. subjects: (episode, node) of what it is about."""

    rule: AutomaticRule
    subjects: tuple[tuple[str, str], ...]
    job: str | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node for _, node in self.subjects))

    @property
    def wish(self) -> dict[str, object]:
        """The request's parameters, without who asks."""
        if self.job is not None:
            return {"job": self.job}
        quarantined = self.rule.action == "quarantine"
        said: dict[str, object] = {
            "nodes": list(self.nodes),
            "mode": COMPLETE if quarantined else self.rule.mode,
        }
        if self.rule.deadline_seconds is not None:
            said["deadline_seconds"] = self.rule.deadline_seconds
        return said


class Left(msgspec.Struct, frozen=True):
    """Something that a rule covers and that is left alone for now."""

    rule: AutomaticRule
    episode: str
    node: str
    reason: str


class Decision(msgspec.Struct, frozen=True):
    """What to ask for now, and what is left alone and why."""

    asks: tuple[Ask, ...] = ()
    left: tuple[Left, ...] = ()


Rows = Mapping[tuple[str, str], Row]
"""By (rule's name, episode)."""


def decide(
    rules: Sequence[AutomaticRule],
    findings: Sequence[OpenFinding],
    nodes: Mapping[str, NodeState],
    rows: Rows,
    *,
    standstill: str,
    world: str,
    now: datetime,
) -> Decision:
    """The requests to write. standstill: why nothing may be done at all, "" where it may.

    The first rule that covers a finding has it. A node is in one request at a time.
    """
    left: list[Left] = []
    due: dict[tuple[str, int], list[tuple[AutomaticRule, OpenFinding]]] = {}
    taken: set[str] = set()
    for finding in sorted(findings, key=lambda one: (one.opened_at, one.episode)):
        node = nodes.get(finding.node)
        rule = _rule_for(rules, finding, node)
        if rule is None or now - finding.opened_at < timedelta(seconds=rule.hold_seconds):
            continue
        row = rows.get((rule.name, finding.episode))
        if row is not None and (row.state in FINAL or row.state == ASKED):
            taken.update([finding.node] if row.state == ASKED else [])
            continue
        reason = standstill or _why_left(rule, finding, node)
        if standstill and row is not None and row.state == WAITING:
            continue  # why it was refused says more
        if reason:
            left.append(Left(rule, finding.episode, finding.node, reason))
        elif finding.node not in taken and _is_due(row, world=world, now=now):
            taken.add(finding.node)
            due.setdefault((rule.name, row.together if row else MOST_NODES), []).append(
                (rule, finding)
            )
    return Decision(tuple(_asks(due, nodes)), tuple(left))


def _rule_for(
    rules: Sequence[AutomaticRule], finding: OpenFinding, node: NodeState | None
) -> AutomaticRule | None:
    block = node.block if node else ""
    return next(
        (
            rule
            for rule in rules
            if rule.covers(
                rule=finding.rule, severity=finding.severity, node=finding.node, block=block
            )
        ),
        None,
    )


def _why_left(rule: AutomaticRule, finding: OpenFinding, node: NodeState | None) -> str:
    """Why the node is not to be touched; "" where it may be."""
    if node is None:
        return f"{finding.node} is not known to Kubernetes."
    if not node.heard:
        return (
            f"{finding.node} is not heard, so what is known of it may be old: a person must look."
        )
    if node.operation_id is not None:
        return f"Operation {node.operation_id} has {finding.node} in hand."
    if node.service not in IN_SERVICE:
        return f"{finding.node} is out of service already ({node.service})."
    if node.unschedulable:
        return f"{finding.node} is cordoned by somebody else."
    if node.uncordoned_at is not None and node.uncordoned_at > finding.opened_at:
        return f"A person put {finding.node} in service after this was found."
    if rule.action == "reschedule" and not node.jobs:
        return f"No job runs on {finding.node}."
    return ""


def _is_due(row: Row | None, *, world: str, now: datetime) -> bool:
    """Whether to ask: at first, and again when the world is another than at the refusal."""
    if row is None or row.state != WAITING:
        return True
    if row.world == world:
        return False
    return not row.world or row.tried_at is None or now - row.tried_at >= RETRY


def _asks(
    due: Mapping[tuple[str, int], list[tuple[AutomaticRule, OpenFinding]]],
    nodes: Mapping[str, NodeState],
) -> list[Ask]:
    asks: list[Ask] = []
    for (_, together), found in sorted(due.items(), key=lambda item: item[0]):
        rule = found[0][0]
        if rule.action == "reschedule":
            by_job: dict[str, list[tuple[str, str]]] = {}
            for _, finding in found:
                for job in nodes[finding.node].jobs[:1]:
                    by_job.setdefault(job, []).append((finding.episode, finding.node))
            asks += [Ask(rule, tuple(subjects), job) for job, subjects in sorted(by_job.items())]
            continue
        subjects = [(finding.episode, finding.node) for _, finding in found]
        asks += [
            Ask(rule, tuple(subjects[start : start + together]))
            for start in range(0, len(subjects), together)
        ]
    return asks


def halved(nodes: int) -> int:
    """How many nodes go into a request after one of so many was refused: one that cannot go holds up the rest."""
    return max(1, nodes // 2)
