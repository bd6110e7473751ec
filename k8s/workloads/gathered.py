"""All workloads that are watched, as they are known to each other.

What an object says of its owner (a JobSet of its TrainJob, Kueue's Workload of the job it admits) is put
into the owner's Workload here, and what no real controller was seen to restart is refused here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from k8s.kept import Kept
from k8s.objects import ObjectMeta, OwnerReference, controller_of
from k8s.resources import Resource
from k8s.workloads.kind import KUEUE_GROUP, Workload, WorkloadKind


def gate(workload: Workload, kind: WorkloadKind, enabled: Collection[str]) -> Workload:
    """The workload, refused when its kind is neither proven nor enabled by the site."""
    if workload.restart_path == "none" or kind.proof == "real controller" or kind.name in enabled:
        return workload
    return replace(
        workload,
        restart_path="none",
        refusal=f"not proven with a real controller ({kind.proof}); a site enables it with "
        f"PITWALL_ENABLED_KINDS={kind.name}",
    )


class Gathered:
    """Workloads by UID with their metadata and controllers. Not thread-safe: its owner locks."""

    def __init__(self, kinds: Sequence[WorkloadKind], enabled: Collection[str] = ()) -> None:
        self.workloads: Kept[Workload] = Kept()
        self.controllers: Kept[OwnerReference] = Kept()
        self.metas: Kept[ObjectMeta] = Kept()
        self.children: Kept[tuple[str, ...]] = Kept()
        self._kinds = {kind.resource: kind for kind in kinds}
        self._enabled = frozenset(enabled)
        self._objects: dict[str, tuple[WorkloadKind, Any]] = {}
        self._owned: dict[str, set[str]] = {}
        self._informants: dict[str, dict[str, Workload]] = {}
        self._groups: frozenset[str] = frozenset()

    def put(self, resource: Resource, item: Any, api_groups: frozenset[str]) -> None:
        """Takes an object that is new or has changed."""
        kind, uid, self._groups = self._kinds[resource], item.metadata.uid, api_groups
        before, after = self._owner_of(uid), controller_of(item.metadata)
        self._objects[uid] = (kind, item)
        if before is not None and (after is None or after.uid != before):
            self._part(before, uid)
        if kind.informs and after is not None:
            own = kind.read(item, api_groups=api_groups)
            self._informants.setdefault(after.uid, {})[uid] = own
        if resource.group != KUEUE_GROUP:
            self._show(uid, item.metadata, after)
        if kind.informs and after is not None:
            self._read(after.uid)

    def drop(self, uid: str) -> None:
        """Takes an object away."""
        owner = self._owner_of(uid)
        self._objects.pop(uid, None)
        for kept in (self.workloads, self.controllers, self.metas):
            kept.drop(uid)
        if owner is not None:
            self._part(owner, uid)

    def read_again(self, api_groups: frozenset[str]) -> None:
        """Reads all workloads anew, since what is installed (Kueue) decides how they are restarted."""
        self._groups = api_groups
        for uid in self._objects:
            self._read(uid)

    def _show(self, uid: str, meta: ObjectMeta, owner: OwnerReference | None) -> None:
        self.metas.put(uid, meta)
        self._read(uid)
        if owner is not None:
            self.controllers.put(uid, owner)
            owned = self._owned.setdefault(owner.uid, set())
            if uid not in owned:
                owned.add(uid)
                self.children.put(owner.uid, tuple(sorted(owned)))
        elif uid in self.controllers:
            self.controllers.drop(uid)

    def _read(self, uid: str) -> None:
        kind, item = self._objects.get(uid, (None, None))
        if kind is None or kind.resource.group == KUEUE_GROUP:
            return
        workload = kind.read(item, api_groups=self._groups)
        acting = kind
        for other, own in sorted(
            self._informants.get(uid, {}).items(),
            key=lambda entry: (not entry[1].finished, entry[0]),
        ):
            told = self._objects[other][0]
            workload = told.inform(workload, own)
            if workload.through is not None and workload.through.uid == other:
                acting = told
        self.workloads.put(uid, gate(workload, acting, self._enabled))

    def _owner_of(self, uid: str) -> str | None:
        known = self._objects.get(uid)
        owner = controller_of(known[1].metadata) if known is not None else None
        return owner.uid if owner is not None else None

    def _part(self, owner: str, uid: str) -> None:
        """The object is not the owner's any more."""
        owned = self._owned.get(owner, set())
        if uid in owned:
            owned.discard(uid)
            if owned:
                self.children.put(owner, tuple(sorted(owned)))
            else:
                del self._owned[owner]
                self.children.drop(owner)
        told = self._informants.get(owner)
        if told is not None and told.pop(uid, None) is not None:
            if not told:
                del self._informants[owner]
            self._read(owner)
