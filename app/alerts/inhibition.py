"""Which open alert mutes which: what one trouble explains is not told beside it. Pure.

Built in (facts/alerting.md): a rack, leaf, power domain or block that is down mutes what its nodes lose by
that; a node that is down mutes its GPUs; a drain mutes the NotReady it expects. What it does not explain, an
uncorrectable error of a GPU in a rack whose links are down, is told all the same.
"""

from collections.abc import Iterable, Mapping, Sequence

from app.alerts.config import Inhibition
from app.alerts.model import Alert, match_all, parse_matcher

DOWN_RULES = frozenset(
    {
        "silent",
        "node-not-ready",
        "infiniband-port-down",
        "infiniband-port-flaps",
        "power-brake",
        "xid-54",
    }
)
"""Causes of a domain's incident that take its nodes away (app/incidents/classes.py: link, silence, power)."""

EXPLAINED_RULES = DOWN_RULES | {"nvml-silent", "gpu-count"}
ABSENCE_RULES = frozenset({"silent", "node-not-ready"})
DOMAINS = ("leaf", "rack", "power", "block")


def inhibitors(
    alerts: Sequence[Alert],
    nodes: Mapping[str, tuple[str, ...]],
    rules: Iterable[Inhibition] = (),
) -> dict[str, str]:
    """{alert id: fingerprint of what mutes it} of the open alerts. nodes: of each alert, by its id.

    Two that would mute each other mute neither: something is always told.
    """
    opened = sorted(
        (one for one in alerts if one.is_open), key=lambda one: (one.started_at, one.id)
    )
    found: dict[str, Alert] = {}
    for source in (one for one in opened if _is_down(one) or one.name == "OperationStarted"):
        for target in opened:
            if target is not source and target.id not in found and _mutes(source, target, nodes):
                found[target.id] = source
    for rule in rules:
        sources = [one for one in opened if _meets(rule.source, one)]
        for target in (one for one in opened if _meets(rule.target, one)):
            for source in sources:
                if source is target or target.id in found or _is_muted_by(source, target, found):
                    continue
                if all(source.labels.get(n, "") == target.labels.get(n, "") for n in rule.equal):
                    found[target.id] = source
    return {name: source.fingerprint for name, source in found.items()}


def _is_muted_by(source: Alert, target: Alert, found: Mapping[str, Alert]) -> bool:
    seen: set[str] = set()
    at: Alert | None = source
    while at is not None and at.id not in seen:
        if at.id == target.id:
            return True
        seen.add(at.id)
        at = found.get(at.id)
    return False


def _meets(matchers: Sequence[str], alert: Alert) -> bool:
    return match_all([parse_matcher(one) for one in matchers], alert.labels)


def _is_down(alert: Alert) -> bool:
    scope, rule = alert.labels.get("scope"), alert.labels.get("rule")
    return (scope in DOMAINS and rule in DOWN_RULES) or (scope == "node" and rule in ABSENCE_RULES)


def _mutes(source: Alert, target: Alert, nodes: Mapping[str, tuple[str, ...]]) -> bool:
    scope = source.labels.get("scope")
    rule = target.labels.get("rule", "")
    node = target.labels.get("node")
    if not node:
        return False
    if source.name == "OperationStarted":
        return rule == "node-not-ready" and node in nodes.get(source.id, ())
    if scope == "node":
        return bool(target.labels.get("gpu_uuid")) and node == source.labels.get("node")
    if rule not in EXPLAINED_RULES or target.labels.get("scope") != "node":
        return False
    place = target.labels.get(str(scope))
    return place == source.labels.get("subject") or node in nodes.get(source.id, ())
