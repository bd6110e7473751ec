"""Before each step: may who asked for it do just that. What may not be done holds, and undoes nothing.

A refusal makes the operation Blocked with the sentence; it goes on by itself once the right is there, or
when another person takes it over. Where the review can't be asked the operation waits.
"""

from collections.abc import Mapping

import msgspec

from app.operations.access import Access, Need
from app.operations.draft import summary
from app.operations.model import (
    BREAK_GLASS,
    CORDON,
    EVICT,
    FORCE_DELETE,
    IN_SERVICE,
    OUT_OF_SERVICE,
    RESUME,
    SUSPEND,
    TAKE_OVER,
    UNCORDON,
    Act,
    Blocked,
    Offer,
    Operation,
    Step,
    StepKey,
    Wait,
)
from app.operations.people import Person, people_of
from k8s.resources import NODES
from k8s.view import ClusterView
from k8s.workloads import kind_of

GIVE_UP_PODS = Need("delete", "", "pods")
"""What the out-of-service taint does to every pod of its node, so what its author must be let do."""


class Reviewed(msgspec.Struct, frozen=True):
    """What is left of an Act once its steps were reviewed; people: in whose name each is taken."""

    decision: Act | Blocked | Wait
    people: Mapping[StepKey, Person] = {}


def review(operation: Operation, act: Act, *, access: Access, view: ClusterView) -> Reviewed:
    """The steps that may be taken; without any, why not. Asks the API server where nothing is known."""
    taken: list[Step] = []
    people: dict[StepKey, Person] = {}
    refused: list[str] = []
    unknown: list[str] = []
    for step in act.steps:
        asked = people_of(operation, step, access.local)
        if not asked:  # nobody has said that the node is off
            refused.append(f"Nobody confirmed that {step.node} is off, so {step.target} is left.")
            continue
        person, verdict = access.judge(asked, needs_of(step, view))
        if verdict.allowed:
            taken.append(step)
            people[(step.name, step.uid)] = person
        else:
            (refused if verdict.allowed is False else unknown).append(verdict.message)
    if taken:
        if len(taken) < len(act.steps):
            act = msgspec.structs.replace(act, steps=tuple(taken))
        return Reviewed(act, people)
    if refused:
        offers = (
            Offer(
                TAKE_OVER,
                "Go on under my name",
                "The remaining steps are reviewed for you, and the audit names you.",
            ),
        )
        return Reviewed(Blocked(summary(refused), offers, act.memory, act.progress))
    return Reviewed(Wait(summary(unknown), act.memory, act.progress, held=True))


def needs_of(step: Step, view: ClusterView) -> tuple[Need, ...]:
    """The verbs and resources of a step's own calls; none for one that only looks."""
    match step.name:
        case _ if step.name in (CORDON, UNCORDON):
            return (Need("patch", "", "nodes", name=step.node),)
        case _ if step.name == EVICT:
            return (Need("create", "", "pods/eviction", namespace=_namespace(step)),)
        case _ if step.name in (SUSPEND, RESUME):
            return _workload_needs(step, view)
        case _ if step.name == FORCE_DELETE:
            return (Need("delete", "", "pods", namespace=_namespace(step)),)
        case _ if step.name == OUT_OF_SERVICE:
            return (Need("patch", "", NODES.plural, name=step.node), GIVE_UP_PODS)
        case _ if step.name == IN_SERVICE:
            return (Need("patch", "", NODES.plural, name=step.node),)
    return ()


def is_break_glass(step: Step) -> bool:
    """Whether the step is taken by the account for emergencies alone."""
    return step.name in BREAK_GLASS


def _namespace(step: Step) -> str:
    return step.target.split("/", 2)[1]


def _workload_needs(step: Step, view: ClusterView) -> tuple[Need, ...]:
    workload = view.workloads.get(step.uid)
    kind = kind_of(workload) if workload is not None else None
    if kind is None:  # it has gone: the step finds that out, and writes nothing
        return (Need("patch", "batch", "jobs", namespace=_namespace(step)),)
    return tuple(
        Need(write.verb, write.group, write.plural, namespace=_namespace(step))
        for write in kind.writes
    )
