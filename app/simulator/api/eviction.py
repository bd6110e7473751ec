"""The eviction subresource: a budget's word, then deletion (policy/v1)."""

from app.simulator.api import failures
from app.simulator.api.selectors import labels_match, parse_label_selector
from app.simulator.clock import as_rfc3339
from app.simulator.controllers.conditions import find_condition, put_condition
from app.simulator.registry import DeleteOptions, Registry
from app.simulator.resources import BY_PLURAL
from app.simulator.store import Object, Record

VIOLATES = "Cannot evict pod as it would violate the pod's disruption budget."
# An API server asks for this long when the disruption controller has not yet seen a budget's change.
UNOBSERVED_RETRY_SECONDS = 10
# Above this many evictions that the controller has not yet seen, no more are let through.
MOST_DISRUPTED_PODS = 2000


def evict(
    registry: Registry, pod: Record, options: DeleteOptions, *, dry_run: bool = False
) -> None:
    """Evict a pod.

    Raises:
        ApiFailure: 403 in a namespace that ends, since an eviction is created; 409 when a
            precondition fails, 429 by a budget, 500 under several budgets.
    """
    registry.check_namespace(BY_PLURAL["pods"], {**pod.object["metadata"]})
    name = pod.key[1]
    metadata = pod.object["metadata"]
    if options.uid is not None and options.uid != metadata["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {options.uid}, "
            f"UID in object meta: {metadata['uid']}"
        )
        raise failures.conflict("pods", "", name, why)
    if not _bypasses_budgets(pod.object):
        budgets = _budgets_of(registry, pod.object)
        if len(budgets) > 1:
            raise failures.internal(
                "This pod has more than one PodDisruptionBudget, "
                "which the eviction subresource does not support."
            )
        if budgets and not _unready_and_allowed(pod.object, budgets[0].object):
            _spend(registry, budgets[0], name, dry_run=dry_run)
        if not dry_run:
            registry.modify("pods", pod.key, lambda obj: _mark(registry, obj))
    registry.delete("pods", pod.key, options, dry_run=dry_run)


def _bypasses_budgets(pod: Object) -> bool:
    phase = pod.get("status", {}).get("phase")
    return bool(
        phase in ("Succeeded", "Failed", "Pending") or pod["metadata"].get("deletionTimestamp")
    )


def _budgets_of(registry: Registry, pod: Object) -> list[Record]:
    labels = pod["metadata"].get("labels")
    found = []
    for record in registry.collection("poddisruptionbudgets").by_index(
        "namespace", pod["metadata"]["namespace"]
    ):
        selector = parse_label_selector(record.object["spec"].get("selector"))
        if selector is not None and labels_match(selector, labels):
            found.append(record)
    return found


def _unready_and_allowed(pod: Object, budget: Object) -> bool:
    ready = find_condition(pod.get("status"), "Ready")
    if ready is not None and ready["status"] == "True":
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget["status"]
    wanted = status.get("desiredHealthy", 0)
    return 0 < wanted <= status.get("currentHealthy", 0)


def _spend(registry: Registry, budget: Record, pod_name: str, *, dry_run: bool) -> None:
    name, status = budget.key[1], budget.object["status"]
    if status.get("observedGeneration", 0) < budget.object["metadata"].get("generation", 0):
        message = f"The disruption budget {name} is still being processed by the server."
        raise _violation(message, retry_after_seconds=UNOBSERVED_RETRY_SECONDS)
    if len(status.get("disruptedPods") or {}) > MOST_DISRUPTED_PODS:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise failures.forbidden("poddisruptionbudgets", "policy", name, why)
    if status.get("disruptionsAllowed", 0) <= 0:
        raise _violation(_why_none(name, status), retry_after_seconds=0)

    def spend(obj: Object) -> None:
        obj["status"]["disruptionsAllowed"] -= 1
        disrupted = obj["status"].setdefault("disruptedPods", {})
        disrupted[pod_name] = as_rfc3339(registry.clock.now())

    registry.modify("poddisruptionbudgets", budget.key, spend, dry_run=dry_run)


def _why_none(name: str, status: Object) -> str:
    condition = find_condition(status, "DisruptionAllowed")
    said = condition.get("message") if condition and condition["status"] == "False" else None
    current, wanted = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if condition and said and condition.get("reason") == "SyncFailed":
        return (
            f"The disruption budget {name} does not allow evicting pods currently "
            f"because it failed sync: {said}"
        )
    if current <= wanted:
        return (
            f"The disruption budget {name} needs {wanted} healthy pods and has {current} currently"
        )
    return f"The disruption budget {name} does not allow evicting pods currently"


def _violation(message: str, *, retry_after_seconds: int) -> failures.ApiFailure:
    cause = {"reason": "DisruptionBudget", "message": message}
    return failures.too_many_requests(
        VIOLATES, retry_after_seconds=retry_after_seconds, causes=[cause]
    )


def _mark(registry: Registry, pod: Object) -> None:
    put_condition(
        pod["status"],
        "DisruptionTarget",
        "True",
        now=registry.clock.now(),
        reason="EvictionByEvictionAPI",
        message="Eviction API: evicting",
    )
