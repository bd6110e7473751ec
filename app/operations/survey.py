"""What is on the nodes now: each pod, what must happen to it, and whose it is. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from app.operations.model import POWER_OFF, Memory, Observed, Operation, Options
from app.operations.protection import (
    Guard,
    guards_of_gang,
    guards_of_pod,
    protected_reason,
    standing,
)
from k8s.drain import DrainOptions, judge_pods
from k8s.objects import Pod, condition, gpu_request, is_ready, is_terminal
from k8s.view import ClusterView
from k8s.workloads import for_pods, kind_of, owner_of, rank_of
from k8s.workloads.kind import Workload

DEFAULT_GRACE_SECONDS = 30
"""A pod's grace where its spec names none (Kubernetes' default for terminationGracePeriodSeconds)."""


BLIND_SECONDS = 60.0
"""Without contact for so long a view is no ground to act on; watches are renewed each 30 s (k8s.reflector)."""


class Surveyed(msgspec.Struct, frozen=True):
    """A pod and its way off the node.

    way: evict (alone), restart (with its gang, by suspend and resume), block (must not be touched),
    skip (stays: a DaemonSet's, a static pod), gone (its containers have ended and its deletion was
    accepted: only a finalizer, such as batch.kubernetes.io/job-tracking, keeps the object).
    """

    pod: Pod
    way: str
    warnings: tuple[str, ...]
    reasons: tuple[str, ...]
    workload: Workload | None
    rank: int | None
    guards: tuple[Guard, ...] = ()  # what protects it, lifted or not

    @property
    def uid(self) -> str:
        """UID of the pod."""
        return self.pod.metadata.uid

    @property
    def node(self) -> str:
        """Node that the pod is bound to."""
        return self.pod.spec.node_name

    @property
    def name(self) -> str:
        """namespace/name of the pod."""
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    @property
    def gpus(self) -> int:
        """GPUs that the scheduler counts for the pod."""
        return gpu_request(self.pod)

    @property
    def is_gang(self) -> bool:
        """True when it moves only with its whole workload."""
        return self.workload is not None and self.workload.restart_path == "suspend_resume"

    @property
    def leaving(self) -> bool:
        """True while it must go and is not gone yet."""
        return self.way in ("evict", "restart", "block")


def fresh(view: ClusterView, now: datetime) -> ClusterView:
    """The view, or an empty one that is not synced when its sources have been silent for too long."""
    if not view.synced or view.observed_at is None:
        return ClusterView()
    silent_seconds = (now - view.observed_at).total_seconds()
    return view if silent_seconds <= BLIND_SECONDS else ClusterView()


def survey(
    pods: Iterable[Pod], *, view: ClusterView, options: Options, now: datetime
) -> list[Surveyed]:
    """Judges pods and names the way each leaves its node, in the order given."""
    judged = judge_pods(
        list(pods),
        view=view,
        options=DrainOptions(
            force=options.force, delete_emptydir_data=options.delete_emptydir_data
        ),
        now=now,
    )
    owners = {
        verdict.pod.metadata.uid: owner
        for verdict in judged
        if verdict.action != "skip" and (owner := owner_of(verdict.pod, view)) is not None
    }
    moved = _as_moved(owners, {verdict.pod.metadata.uid: verdict.pod for verdict in judged})
    found = []
    gangs: dict[str, tuple[Guard, ...]] = {}
    for verdict in judged:
        pod, reasons = verdict.pod, tuple(verdict.reasons)
        way: str = verdict.action
        owner = owners.get(pod.metadata.uid)
        workload = moved[owner.uid] if owner is not None else None
        if way == "gone":
            # Its deletion was accepted; until its containers have ended it keeps the node.
            way = "gone" if is_terminal(pod) else "evict"
        if way == "evict" and workload is not None and not _is_over(pod, workload):
            way, more = _way_of(workload)
            reasons += more
        guards: tuple[Guard, ...] = ()
        if way in ("evict", "restart") and not _is_on_its_way(pod):
            guards = _guards(pod, workload if way == "restart" else None, gangs, view)
            if left := standing(guards, options.accept_protected):
                way, reasons = "block", (*reasons, *(protected_reason(guard) for guard in left))
        found.append(
            Surveyed(
                pod, way, tuple(verdict.warnings), reasons, workload, rank_of(pod, view), guards
            )
        )
    return found


def _as_moved(owners: Mapping[str, Workload], pods: Mapping[str, Pod]) -> dict[str, Workload]:
    """Each workload as it is moved when these pods of it go: whole, where one of them can't be lost alone."""
    members: dict[str, list[Pod]] = {}
    for uid, owner in owners.items():
        members.setdefault(owner.uid, []).append(pods[uid])
    return {owner.uid: for_pods(owner, members[owner.uid]) for owner in owners.values()}


def _is_on_its_way(pod: Pod) -> bool:
    """Nothing is left to protect of what has ended, or was told to go."""
    return is_terminal(pod) or pod.metadata.deletion_timestamp is not None


def _guards(
    pod: Pod, gang: Workload | None, known: dict[str, tuple[Guard, ...]], view: ClusterView
) -> tuple[Guard, ...]:
    if gang is None:
        return guards_of_pod(pod, view=view)
    if gang.uid not in known:
        known[gang.uid] = guards_of_gang(gang, (pod, *live_pods(gang, view)), view=view)
    return known[gang.uid]


def pods_on(nodes: Iterable[str], view: ClusterView) -> list[Pod]:
    """Pods bound to these nodes, by node and name, so that two looks give one order."""
    found: list[Pod] = []
    for node in sorted(nodes):
        found.extend(
            sorted(view.pods_on(node), key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
        )
    return found


def pods_to_move(operation: Operation, view: ClusterView) -> list[Pod]:
    """The pods that this operation is about: all on its nodes, or those a reschedule was accepted for."""
    if operation.kind == "reschedule":
        found = [view.pods[uid] for uid in operation.options.pods if uid in view.pods]
        return sorted(found, key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
    return pods_on(operation.nodes, view)


def is_dead(node: str, view: ClusterView) -> bool:
    """True when the node does not answer: NotReady, Unknown, or not there any more."""
    found = view.nodes.get(node)
    return found is None or not is_ready(found)


def is_powered_off(node: str, memory: Memory, view: ClusterView) -> bool:
    """True while a person's word that the node is off holds: it ends when the node answers again.

    A word on an earlier outage is none on this one, which began when the node last ceased to be Ready.
    """
    if not is_dead(node, view):
        return False
    found = view.nodes.get(node)
    ready = condition(found.status.conditions, "Ready") if found is not None else None
    began_at = ready.last_transition_time if ready is not None else None
    return any(
        choice.name == POWER_OFF
        and choice.subject == node
        and (began_at is None or choice.at >= began_at)
        for choice in memory.choices
    )


def unsettled_nodes(workload: Workload, memory: Memory, view: ClusterView) -> list[str]:
    """Nodes that do not answer, hold a pod of the workload, and are not known to be off."""
    return sorted(
        {
            pod.spec.node_name
            for pod in live_pods(workload, view)
            if pod.spec.node_name
            and is_dead(pod.spec.node_name, view)
            and not is_powered_off(pod.spec.node_name, memory, view)
        }
    )


def live_pods(workload: Workload, view: ClusterView) -> list[Pod]:
    """Pods of the workload of which a container may still run."""
    return [pod for pod in view.pods_of(workload.uid) if not is_terminal(pod)]


def grace_seconds(pods: Iterable[Pod]) -> float:
    """The longest grace among pods, as their deletion or their spec says."""
    longest = 0.0
    for pod in pods:
        for grace in (
            pod.metadata.deletion_grace_period_seconds,
            pod.spec.termination_grace_period_seconds,
            DEFAULT_GRACE_SECONDS,
        ):
            if grace is not None:
                longest = max(longest, float(grace))
                break
    return longest


def retried_at(memory: Memory) -> datetime | None:
    """When a person last chose to try or wait again."""
    return max((choice.at for choice in memory.choices if choice.name == "retry"), default=None)


def node_condition(node: str, observed: Observed) -> str:
    """Health of a node in words, for messages."""
    health, reason = observed.health_of(node)
    return f"{health} ({reason})" if reason else health


def _is_over(pod: Pod, workload: Workload) -> bool:
    return is_terminal(pod) or workload.finished is not None


def _way_of(workload: Workload) -> tuple[str, tuple[str, ...]]:
    """How a pod of the workload leaves, and what stands against it."""
    if workload.restart_path == "suspend_resume":
        return "restart", ()
    if workload.restart_path == "none" and kind_of(workload) is not None:
        return "block", (workload.refusal or "Pitwall does not restart this kind",)
    # Of a kind that is only named the pods can be drained; its own controller brings them back.
    return "evict", ()
