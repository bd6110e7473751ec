"""Creating, changing and deleting objects by the rules of an API server, for clients and controllers alike."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.simulator.api import failures
from app.simulator.clock import Clock, as_rfc3339, parse_rfc3339
from app.simulator.defaults import fill_defaults
from app.simulator.identity import Identity
from app.simulator.resources import BY_PLURAL, Resource
from app.simulator.store import Collection, Key, Missing, Object, Record, Stale, Store, Taken, clone
from app.simulator.validation import check_object, check_update

_KEPT_METADATA = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)


@dataclass(frozen=True)
class DeleteOptions:
    """metav1.DeleteOptions. `grace_seconds` None: what the object itself asks for."""

    grace_seconds: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    propagation: str | None = None


@dataclass(frozen=True)
class Deletion:
    """What a deletion left: the last version, and whether the object is gone."""

    record: Record
    gone: bool


class Registry:
    """The store under the rules of the API: defaults, checks, generations, graceful deletion."""

    def __init__(self, store: Store, identity: Identity) -> None:
        self.store = store
        self.identity = identity
        pods = store.collection("pods")
        pods.add_index("node", lambda pod: [pod["spec"].get("nodeName") or ""])
        for plural in BY_PLURAL:
            store.collection(plural).add_index("owner", owner_uids)
            store.collection(plural).add_index(
                "namespace", lambda obj: [obj["metadata"].get("namespace") or ""]
            )
        store.collection("events").add_index(
            "involved", lambda event: [event["involvedObject"].get("uid") or ""]
        )

    @property
    def clock(self) -> Clock:
        return self.store.clock

    def collection(self, plural: str) -> Collection:
        return self.store.collection(plural)

    def get(self, plural: str, key: Key) -> Record | None:
        return self.store.get(plural, key)

    def objects(self, plural: str, namespace: str | None = None) -> list[Object]:
        collection = self.collection(plural)
        records = (
            collection.in_order()
            if namespace is None
            else collection.by_index("namespace", namespace)
        )
        return [record.object for record in records]

    def pods_on(self, node: str) -> list[Object]:
        return [record.object for record in self.collection("pods").by_index("node", node)]

    def owned(self, plural: str, uid: str) -> list[Object]:
        return [record.object for record in self.collection(plural).by_index("owner", uid)]

    def create(
        self,
        plural: str,
        obj: Object,
        *,
        dry_run: bool = False,
        created_at: datetime | None = None,
    ) -> Record:
        """Store a new object, which becomes the registry's.

        Raises:
            ApiFailure: 403 in a namespace that ends, 404 without one, 409 taken, 422 invalid.
        """
        resource = BY_PLURAL[plural]
        metadata = obj["metadata"]
        if resource.namespaced:
            self.check_namespace(resource, metadata)
        if not metadata.get("name"):
            metadata["name"] = self._generate_name(resource, metadata)
        key = key_of(obj)
        if self.store.get(plural, key) is not None:
            raise failures.already_exists(plural, resource.group, key[1])
        which = self.identity.occurrence(plural, *key) if not dry_run else -1
        metadata["uid"] = self.identity.uuid("uid", plural, *key, which)
        metadata["creationTimestamp"] = as_rfc3339(created_at or self.clock.now())
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(field, None)
        if resource.counts_generation:
            metadata["generation"] = 1
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        fill_defaults(plural, obj)
        if causes := check_object(resource, obj):
            raise failures.invalid(resource.kind, resource.group, key[1], causes)
        try:
            return self.store.create(plural, key, obj, dry_run=dry_run)
        except Taken as error:
            raise failures.already_exists(plural, resource.group, key[1]) from error

    def check_namespace(self, resource: Resource, metadata: Object) -> None:
        """Raises ApiFailure when nothing may be created there: 404 without it, 403 while it ends."""
        name = metadata.get("namespace") or "default"
        metadata["namespace"] = name
        record = self.store.get("namespaces", ("", name))
        if record is None:
            raise failures.not_found("namespaces", "", name)
        if record.object.get("status", {}).get("phase") == "Terminating":
            why = f"unable to create new content in namespace {name} because it is being terminated"
            failure = failures.forbidden(
                resource.plural, resource.group, metadata.get("name", ""), why
            )
            failure.status["details"]["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {name} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            raise failure

    def _generate_name(self, resource: Resource, metadata: Object) -> str:
        prefix = metadata.get("generateName")
        if not prefix:
            cause = failures.required_value("metadata.name", "name or generateName is required")
            raise failures.invalid(resource.kind, resource.group, "", [cause])
        where = (resource.plural, metadata.get("namespace") or "", prefix)
        return prefix + self.identity.suffix(*where, self.identity.occurrence("name", *where))

    def replace(
        self,
        plural: str,
        old: Record,
        new: Object,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Record:
        """Store `new` over `old`, keeping what a client may not write.

        Raises:
            ApiFailure: 404 gone, 409 another version or uid, 422 invalid.
        """
        resource = BY_PLURAL[plural]
        name = old.key[1]
        metadata = dict(new["metadata"])
        before = old.object["metadata"]
        asked = metadata.get("resourceVersion")
        if asked and asked != before["resourceVersion"]:
            raise failures.conflict(plural, resource.group, name)
        if metadata.get("uid") and metadata["uid"] != before["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {metadata['uid']}, "
                f"UID in object meta: {before['uid']}"
            )
            raise failures.conflict(plural, resource.group, name, why)
        for field in _KEPT_METADATA:
            metadata.pop(field, None)
            if field in before:
                metadata[field] = before[field]
        metadata["name"] = name
        if resource.namespaced:
            metadata["namespace"] = old.key[0]
        new = {**new, "metadata": metadata, "apiVersion": resource.api_version}
        new["kind"] = resource.kind
        if resource.has_status:
            kept = "spec" if subresource == "status" else "status"
            new.pop(kept, None)
            if kept in old.object:
                new[kept] = old.object[kept]
        if subresource != "status":
            fill_defaults(plural, new)
            causes = check_object(resource, new) + check_update(resource, old.object, new)
            if causes:
                raise failures.invalid(resource.kind, resource.group, name, causes)
            if resource.counts_generation and new.get("spec") != old.object.get("spec"):
                metadata["generation"] = before.get("generation", 0) + 1
        return self.put(plural, old, new, dry_run=dry_run)

    def put(self, plural: str, old: Record, new: Object, *, dry_run: bool = False) -> Record:
        """Store `new`, or remove the object when it waited only for its last finalizer."""
        resource = BY_PLURAL[plural]
        metadata = new["metadata"]
        compared = {**new, "metadata": {**metadata, "resourceVersion": str(old.revision)}}
        ended = (
            metadata.get("deletionTimestamp")
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
            and not (plural == "namespaces" and new["spec"].get("finalizers"))
        )
        if compared == old.object and not ended:
            return old
        try:
            if ended:
                return self.store.delete(
                    plural, old.key, last=new, expected_revision=old.revision, dry_run=dry_run
                )
            return self.store.update(
                plural, old.key, new, expected_revision=old.revision, dry_run=dry_run
            )
        except Missing as error:
            raise failures.not_found(plural, resource.group, old.key[1]) from error
        except Stale as error:
            raise failures.conflict(plural, resource.group, old.key[1]) from error

    def modify(
        self, plural: str, key: Key, change: Callable[[Object], None], *, dry_run: bool = False
    ) -> Record | None:
        """A controller's change: `change` alters a copy of the object, spec or status.

        Returns the new version, or None when there is no such object.
        """
        old = self.store.get(plural, key)
        if old is None:
            return None
        new = clone(old.object)
        change(new)
        return self.put(plural, old, new, dry_run=dry_run)

    def delete(
        self,
        plural: str,
        key: Key,
        options: DeleteOptions | None = None,
        *,
        dry_run: bool = False,
    ) -> Deletion:
        """Delete with grace and finalizers as the API does.

        Raises:
            ApiFailure: 404, or 409 when a precondition does not hold.
        """
        options = options or DeleteOptions()
        resource = BY_PLURAL[plural]
        record = self.store.get(plural, key)
        if record is None:
            raise failures.not_found(plural, resource.group, key[1])
        self._check_preconditions(resource, record, options)
        obj = record.object
        metadata = dict(obj["metadata"])
        finalizers = _finalizers_after(metadata, options.propagation)
        grace = _grace_seconds(plural, obj, options.grace_seconds)
        held = bool(finalizers) or plural == "namespaces"
        if not held and grace == 0:
            gone = self.store.delete(plural, key, dry_run=dry_run)
            return Deletion(gone, True)
        now = self.clock.now()
        since = metadata.get("deletionTimestamp")
        if since is None:
            metadata["deletionTimestamp"] = as_rfc3339(now + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
            if resource.counts_generation:
                metadata["generation"] = metadata.get("generation", 0) + 1
        elif grace < (earlier := metadata.get("deletionGracePeriodSeconds") or 0):
            begun = parse_rfc3339(since) - timedelta(seconds=earlier)
            metadata["deletionTimestamp"] = as_rfc3339(begun + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if finalizers:
            metadata["finalizers"] = finalizers
        changed = {**obj, "metadata": metadata}
        if plural == "namespaces":
            changed["status"] = {**obj.get("status", {}), "phase": "Terminating"}
        return Deletion(self.put(plural, record, changed, dry_run=dry_run), False)

    def _check_preconditions(
        self, resource: Resource, record: Record, options: DeleteOptions
    ) -> None:
        metadata = record.object["metadata"]
        for wanted, found, called in (
            (options.uid, metadata["uid"], "UID"),
            (options.resource_version, metadata["resourceVersion"], "ResourceVersion"),
        ):
            if wanted is not None and wanted != found:
                why = (
                    f"Precondition failed: {called} in precondition: {wanted}, "
                    f"{called} in object meta: {found}"
                )
                raise failures.conflict(resource.plural, resource.group, record.key[1], why)


def _finalizers_after(metadata: Object, propagation: str | None) -> list[str]:
    kept = list(metadata.get("finalizers") or ())
    added = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(propagation or "")
    if added and added not in kept and not metadata.get("deletionTimestamp"):
        kept.append(added)
    return kept


def _grace_seconds(plural: str, obj: Object, asked: int | None) -> int:
    """Only pods have grace; one that runs nowhere or has ended needs none."""
    if plural != "pods":
        return 0
    metadata, spec = obj["metadata"], obj["spec"]
    grace = asked
    if grace is None:
        if metadata.get("deletionTimestamp"):
            return int(metadata.get("deletionGracePeriodSeconds") or 0)
        grace = int(spec.get("terminationGracePeriodSeconds", 30))
    if not spec.get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return max(0, grace)


def key_of(obj: Object) -> Key:
    metadata: dict[str, Any] = obj["metadata"]
    return (metadata.get("namespace") or "", metadata["name"])


def owner_uids(obj: Object) -> list[str]:
    return [one.get("uid", "") for one in obj["metadata"].get("ownerReferences") or ()]


def controller_of(obj: Object) -> Object | None:
    """The owner reference that controls the object."""
    for one in obj["metadata"].get("ownerReferences") or ():
        if one.get("controller"):
            return dict(one)
    return None
