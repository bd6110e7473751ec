"""What controllers ask of a pod."""

from collections.abc import Mapping
from typing import Any

from app.simulator.controllers.conditions import condition_is

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
TERMINAL = ("Succeeded", "Failed")


def phase_of(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_terminal(pod: Object) -> bool:
    return phase_of(pod) in TERMINAL


def is_terminating(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    return condition_is(pod.get("status"), "Ready")


def annotation_of(pod: Object, name: str) -> str | None:
    return (pod["metadata"].get("annotations") or {}).get(name)


def parse_quantity(text: object) -> float:
    """A resource.Quantity as a number in its base unit. Raises ValueError."""
    raw = str(text)
    for suffix, factor in _SUFFIXES:
        if raw.endswith(suffix):
            return float(raw[: -len(suffix)]) * factor
    return float(raw)


_SUFFIXES = (
    ("Ki", 2.0**10), ("Mi", 2.0**20), ("Gi", 2.0**30), ("Ti", 2.0**40), ("Pi", 2.0**50), ("Ei", 2.0**60),
    ("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15), ("E", 1e18),
)  # fmt: skip


def requests_of(pod: Object) -> dict[str, float]:
    """What a pod asks for: the sum over its containers, or its largest init container."""
    spec = pod["spec"]
    total: dict[str, float] = {}
    for container in spec.get("containers") or ():
        for name, quantity in _container_requests(container).items():
            total[name] = total.get(name, 0.0) + quantity
    for container in spec.get("initContainers") or ():
        for name, quantity in _container_requests(container).items():
            total[name] = max(total.get(name, 0.0), quantity)
    return total


def _container_requests(container: Object) -> dict[str, float]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: parse_quantity(quantity) for name, quantity in asked.items()}


def tolerates(pod: Object, taint: Mapping[str, Any]) -> tuple[bool, float | None]:
    """Whether a pod tolerates a taint, and for how many seconds (None: for ever)."""
    shortest: float | None = None
    found = False
    for one in pod["spec"].get("tolerations") or ():
        if one.get("effect") and one["effect"] != taint.get("effect"):
            continue
        if one.get("key") and one["key"] != taint["key"]:
            continue
        if one.get("operator", "Equal") != "Exists" and (
            not one.get("key") or one.get("value", "") != taint.get("value", "")
        ):
            continue
        found = True
        seconds = one.get("tolerationSeconds")
        if seconds is not None:
            shortest = float(seconds) if shortest is None else min(shortest, float(seconds))
    return found, shortest


def selects_node(pod: Object, node: Object) -> bool:
    """Whether nodeSelector and required node affinity accept a node."""
    labels = node["metadata"].get("labels") or {}
    spec = pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(
        all(_expression_holds(one, labels) for one in term.get("matchExpressions") or ())
        and all(
            _expression_holds(one, {"metadata.name": node["metadata"]["name"]})
            for one in term.get("matchFields") or ()
        )
        for term in required.get("nodeSelectorTerms") or ()
    )


def _expression_holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    values: list[str] = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
        case _:
            return False
