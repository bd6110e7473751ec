"""leaderworkerset.x-k8s.io/v1: groups of a leader and its workers; a lost pod renews its group.

Its pods are of two levels: leaders in a StatefulSet of the set, workers in a StatefulSet of their leader's pod.
Field names read in kubernetes-sigs/lws at 060ab4d (2026-08-21).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from k8s.objects import Narrow, ObjectMeta, PodTemplate, controller_of
from k8s.resources import Resource
from k8s.workloads.kind import QUEUE_LABEL, Proof, Workload, refusal_of, team_of
from k8s.workloads.roles import RankLabels, Role, gpus_of_template
from k8s.workloads.suspension import Evicted

LWS_RANKS = RankLabels(
    place="leaderworkerset.sigs.k8s.io/worker-index",
    replica="leaderworkerset.sigs.k8s.io/group-index",
)


class GroupTemplate(Narrow, frozen=True):
    leader_template: PodTemplate | None = None
    worker_template: PodTemplate = PodTemplate()
    size: int = 1
    restart_policy: str = "RecreateGroupOnPodRestart"


class SetSpec(Narrow, frozen=True):
    replicas: int = 1
    leader_worker_template: GroupTemplate = GroupTemplate()


class SetStatus(Narrow, frozen=True):
    replicas: int = 0
    ready_replicas: int = 0


class LeaderWorkerSet(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: SetSpec = SetSpec()
    status: SetStatus = SetStatus()


LEADER_WORKER_SETS = Resource(
    "leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet", True, LeaderWorkerSet
)


@dataclass(frozen=True)
class LeaderWorkerSetKind(Evicted):
    """How Pitwall reads LeaderWorkerSets: one evicted pod renews its whole group."""

    name: str = "LeaderWorkerSet"
    resource: Resource = LEADER_WORKER_SETS
    proof: Proof = "real controller"

    def read(self, obj: LeaderWorkerSet, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a LeaderWorkerSet; its groups are independent of each other."""
        meta, owner = obj.metadata, controller_of(obj.metadata)
        template, replicas = obj.spec.leader_worker_template, obj.spec.replicas
        each = gpus_of_template(template.worker_template)
        leader = template.leader_template
        first = gpus_of_template(leader) if leader is not None else each
        refusal = refusal_of(meta, api_groups=frozenset())
        whole = template.restart_policy in ("RecreateGroupOnPodRestart", "RecreateGroupAfterStart")
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="LeaderWorkerSet",
            api_version=self.resource.api_version,
            active=obj.status.replicas * template.size,
            ready=obj.status.ready_replicas * template.size,
            wanted_pods=replicas * template.size,
            team=team_of(meta),
            queue=meta.labels.get(QUEUE_LABEL),
            generation=meta.generation,
            restart_path="none" if refusal else "evict",
            refusal=refusal,
            warnings=(
                f"evicting a pod renews its group of {template.size}"
                if whole
                else f"its restartPolicy is {template.restart_policy}: the rest of the group is not restarted",
            )
            if template.size > 1
            else (),
            owner_uid=owner.uid if owner else None,
            gpus=replicas * (first + each * max(0, template.size - 1)),
            roles=(Role("", template.size, each, replicas),),
            rank_labels=LWS_RANKS,
            started_at=meta.creation_timestamp,
        )
