"""Label selectors, tolerations and node affinity, as the API server and the scheduler read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8s.objects import LabelRequirement, LabelSelector, Node, Taint, Toleration

# Effects that keep a new pod away; PreferNoSchedule only makes a node less liked.
KEEPING_AWAY = frozenset({"NoSchedule", "NoExecute"})
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"


def _holds(operator: str, values: Sequence[str], have: str | None) -> bool:
    match operator:
        case "In":
            return have is not None and have in values
        case "NotIn":
            return have is None or have not in values
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case "Gt" | "Lt":
            try:
                number, bound = int(have or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
    return False


def _requirement_holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    return _holds(requirement.operator, requirement.values, labels.get(requirement.key))


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """True when a label selector matches; None matches nothing, an empty one everything."""
    if selector is None:
        return False
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _requirement_holds(requirement, labels) for requirement in selector.match_expressions
    )


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """True when the toleration covers the taint; an empty key with Exists covers every one."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def untolerated(node: Node, tolerations: Sequence[Toleration]) -> Taint | None:
    """The first taint that keeps a pod with these tolerations off the node, None when all are covered."""
    for taint in node.spec.taints:
        if taint.effect in KEEPING_AWAY and not any(
            tolerates(toleration, taint) for toleration in tolerations
        ):
            return taint
    return None


def tolerates_cordon(tolerations: Sequence[Toleration]) -> bool:
    """True when a cordon does not keep such a pod off a node."""
    taint = Taint(key=UNSCHEDULABLE_TAINT, effect="NoSchedule")
    return any(tolerates(toleration, taint) for toleration in tolerations)


def node_affinity_holds(affinity: Mapping[str, Any] | None, node: Node) -> bool:
    """True when the required node affinity (terms are alternatives) lets a pod onto the node."""
    required = ((affinity or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    return any(_term_holds(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term_holds(term: Mapping[str, Any], node: Node) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False  # an empty term matches no node
    labels = node.metadata.labels
    return all(
        _holds(entry["operator"], entry.get("values") or (), labels.get(entry["key"]))
        for entry in expressions
    ) and all(
        entry.get("key") == "metadata.name"
        and _holds(entry["operator"], entry.get("values") or (), node.metadata.name)
        for entry in fields
    )
