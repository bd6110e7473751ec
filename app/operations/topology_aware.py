"""One node of a topology-aware Workload at a time. Pure.

Kueue replaces one failing node of such a Workload in place; a second one that fails meanwhile evicts the
whole Workload (facts/drain-and-reschedule.md, hard case 6). So its nodes leave one by one, or all of
them in one operation that restarts it as a whole.
"""

from collections.abc import Iterable, Mapping, Set

from app.limits import LimitLine
from k8s.objects import Pod, is_ready, is_terminal
from k8s.view import ClusterView
from k8s.workloads import owner_of

TAS_LABEL = "kueue.x-k8s.io/tas"
WORKLOAD_ANNOTATION = "kueue.x-k8s.io/workload"
TOPOLOGY_ANNOTATIONS = (
    "kueue.x-k8s.io/podset-required-topology",
    "kueue.x-k8s.io/podset-preferred-topology",
    "kueue.x-k8s.io/podset-unconstrained-topology",
)

Key = tuple[str, str]  # namespace, name of the Kueue Workload


def topology_workload(pod: Pod) -> Key | None:
    """The Kueue Workload of a pod that topology-aware scheduling has placed; None for any other pod."""
    meta = pod.metadata
    aware = TAS_LABEL in meta.labels or any(
        name in meta.annotations for name in TOPOLOGY_ANNOTATIONS
    )
    name = meta.annotations.get(WORKLOAD_ANNOTATION)
    return (meta.namespace, name) if aware and name else None


def topology_lines(
    nodes: Set[str],
    *,
    view: ClusterView,
    held: Set[str],
    out: Set[str] | None = None,
    restarts: bool = True,
) -> list[LimitLine]:
    """A line a topology-aware Workload with pods on the nodes.

    held: nodes of other open operations; out: nodes that are NotReady, where it is known. restarts: False when pods leave
    alone, as at their end. Where the operation restarts the Workload whole, all of its nodes count as one.
    """
    found: dict[Key, set[str]] = {}
    whole: dict[Key, bool] = {}
    for node in nodes:
        for pod in _live(view.pods_on(node)):
            key = topology_workload(pod)
            if key is None:
                continue
            found.setdefault(key, set()).add(node)
            owner = owner_of(pod, view)
            whole[key] = restarts and owner is not None and owner.restart_path == "suspend_resume"
    if not found:
        return []
    if out is None:
        out = {name for name, node in view.nodes.items() if not is_ready(node)}
    elsewhere = _nodes_of(found, (held | out) - nodes, view)
    lines = []
    for key, mine in sorted(found.items()):
        others = elsewhere.get(key, set())
        now, after = len(others), len(others) + (1 if whole[key] else len(mine))
        lines.append(LimitLine("topology", 1, now, after, _said(key, mine, others)))
    return lines


def _nodes_of(
    keys: Mapping[Key, object], nodes: Iterable[str], view: ClusterView
) -> dict[Key, set[str]]:
    found: dict[Key, set[str]] = {}
    for node in nodes:
        for pod in _live(view.pods_on(node)):
            key = topology_workload(pod)
            if key is not None and key in keys:
                found.setdefault(key, set()).add(node)
    return found


def _live(pods: Iterable[Pod]) -> list[Pod]:
    return [pod for pod in pods if not is_terminal(pod)]


def _said(key: Key, mine: set[str], others: set[str]) -> str:
    name = "/".join(key)
    if others:
        return (
            f"Workload {name} is topology-aware and is losing {', '.join(sorted(others))} already: one node "
            "of it at a time, a second one evicts it whole. Wait until it has its place again."
        )
    if len(mine) == 1:
        return f"Workload {name} is topology-aware: {next(iter(mine))} is the one node of it that leaves now."
    return (
        f"Workload {name} is topology-aware and has pods on {len(mine)} of these nodes: one node of it at a "
        "time, unless it is restarted whole."
    )
