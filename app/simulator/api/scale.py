"""The scale subresource of what has replicas."""

from app.simulator.api import failures
from app.simulator.registry import Registry
from app.simulator.resources import Resource
from app.simulator.store import Object, Record


def read_scale(resource: Resource, record: Record) -> Object:
    """autoscaling/v1 Scale of an object."""
    obj = record.object
    metadata = obj["metadata"]
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            name: metadata[name]
            for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        },
        "spec": {"replicas": obj["spec"].get("replicas", 0)},
        "status": {
            "replicas": obj.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }


def write_scale(
    registry: Registry, resource: Resource, record: Record, scale: Object, *, dry_run: bool
) -> Record:
    """Set the replicas that a Scale asks for. Raises ApiFailure 409, 422."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        why = "must be greater than or equal to 0"
        cause = failures.wrong_value("spec.replicas", replicas, why)
        raise failures.invalid("Scale", "autoscaling", record.key[1], [cause])
    metadata = dict(record.object["metadata"])
    if asked := (scale.get("metadata") or {}).get("resourceVersion"):
        metadata["resourceVersion"] = asked
    changed = {
        **record.object,
        "metadata": metadata,
        "spec": {**record.object["spec"], "replicas": replicas},
    }
    return registry.replace(resource.plural, record, changed, dry_run=dry_run)
