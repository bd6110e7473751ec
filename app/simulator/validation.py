"""The checks that an API server makes before it stores an object, as causes of a 422."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from app.simulator.api.failures import (
    ApiFailure,
    Cause,
    forbidden_value,
    required_value,
    unsupported_value,
    wrong_value,
)
from app.simulator.api.selectors import parse_label_selector
from app.simulator.resources import Resource

Object = dict[str, Any]

_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_QUALIFIED = re.compile(r"^([a-z0-9.-]+/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_QUANTITY = re.compile(r"^[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?$")
_ACTIONS = ["Count", "FailIndex", "FailJob", "Ignore"]
_EFFECTS = ["NoExecute", "NoSchedule", "PreferNoSchedule"]
_BAD_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character"
)


def check_object(resource: Resource, obj: Object) -> list[Cause]:
    """What is wrong with `obj` as it would be stored."""
    causes = _check_metadata(obj["metadata"])
    checker = _CHECKERS.get(resource.plural)
    if checker is not None:
        causes += checker(obj)
    return causes


def check_update(resource: Resource, old: Object, new: Object) -> list[Cause]:
    """What may not change, and does."""
    checker = _UPDATE_CHECKERS.get(resource.plural)
    causes = checker(old, new) if checker is not None else []
    if old["metadata"].get("deletionTimestamp"):
        known = set(old["metadata"].get("finalizers") or ())
        added = [one for one in new["metadata"].get("finalizers") or () if one not in known]
        if added:
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            causes.append(forbidden_value("metadata.finalizers", why))
    return causes


def _check_metadata(metadata: Object) -> list[Cause]:
    causes = []
    name = metadata.get("name", "")
    if len(name) > 253 or not _SUBDOMAIN.match(name):
        causes.append(wrong_value("metadata.name", name, _BAD_SUBDOMAIN))
    for key, value in (metadata.get("labels") or {}).items():
        if not _QUALIFIED.match(key):
            causes.append(wrong_value("metadata.labels", key, "name part must be alphanumeric"))
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.match(value):
            causes.append(wrong_value("metadata.labels", value, "not a valid label value"))
    for key in metadata.get("annotations") or {}:
        if not _QUALIFIED.match(key.lower()):
            causes.append(wrong_value("metadata.annotations", key, "not a qualified name"))
    return causes


def _check_pod_spec(spec: Object, path: str) -> list[Cause]:
    causes = []
    containers = spec.get("containers") or []
    if not containers:
        causes.append(required_value(f"{path}.containers"))
    for at, container in enumerate(containers):
        if not container.get("name"):
            causes.append(required_value(f"{path}.containers[{at}].name"))
        if not container.get("image"):
            causes.append(required_value(f"{path}.containers[{at}].image"))
        for amounts in (container.get("resources") or {}).values():
            for resource, amount in amounts.items() if isinstance(amounts, dict) else ():
                if not _QUANTITY.match(str(amount)):
                    where = f"{path}.containers[{at}].resources[{resource}]"
                    causes.append(wrong_value(where, amount, "must be a quantity"))
    policy = spec.get("restartPolicy", "Always")
    if policy not in ("Always", "OnFailure", "Never"):
        supported = ["Always", "Never", "OnFailure"]
        causes.append(unsupported_value(f"{path}.restartPolicy", policy, supported))
    return causes


def _check_pod(obj: Object) -> list[Cause]:
    return _check_pod_spec(obj["spec"], "spec")


def _check_job(obj: Object) -> list[Cause]:
    spec = obj["spec"]
    causes = []
    for field in ("parallelism", "completions", "backoffLimit"):
        value = spec.get(field)
        if value is not None and value < 0:
            causes.append(wrong_value(f"spec.{field}", value, "must be greater than or equal to 0"))
    mode = spec["completionMode"]
    if mode not in ("NonIndexed", "Indexed"):
        causes.append(unsupported_value("spec.completionMode", mode, ["Indexed", "NonIndexed"]))
    if mode == "Indexed" and spec.get("completions") is None:
        causes.append(required_value("spec.completions", "when completion mode is Indexed"))
    template = spec["template"]["spec"]
    causes += _check_pod_spec(template, "spec.template.spec")
    if template.get("restartPolicy") == "Always":
        path = "spec.template.spec.restartPolicy"
        causes.append(unsupported_value(path, "Always", ["Never", "OnFailure"]))
    for at, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        if rule.get("action") not in _ACTIONS:
            path = f"spec.podFailurePolicy.rules[{at}].action"
            causes.append(unsupported_value(path, rule.get("action", ""), _ACTIONS))
    if spec.get("podFailurePolicy"):
        if template.get("restartPolicy") != "Never":
            path = "spec.template.spec.restartPolicy"
            why = 'only "Never" is supported when podFailurePolicy is specified'
            causes.append(wrong_value(path, template.get("restartPolicy"), why))
        if spec["podReplacementPolicy"] != "Failed":
            path = "spec.podReplacementPolicy"
            causes.append(unsupported_value(path, spec["podReplacementPolicy"], ["Failed"]))
    elif spec["podReplacementPolicy"] not in ("Failed", "TerminatingOrFailed"):
        path = "spec.podReplacementPolicy"
        supported = ["Failed", "TerminatingOrFailed"]
        causes.append(unsupported_value(path, spec["podReplacementPolicy"], supported))
    return causes


def _check_node(obj: Object) -> list[Cause]:
    causes = []
    seen = set()
    for at, taint in enumerate(obj["spec"].get("taints") or ()):
        path = f"spec.taints[{at}]"
        if not taint.get("key"):
            causes.append(required_value(f"{path}.key"))
        if taint.get("effect") not in _EFFECTS:
            causes.append(unsupported_value(f"{path}.effect", taint.get("effect", ""), _EFFECTS))
        identity = (taint.get("key"), taint.get("effect"))
        if identity in seen:
            causes.append(
                {
                    "reason": "FieldValueDuplicate",
                    "message": f"Duplicate value: {identity}",
                    "field": path,
                }
            )
        seen.add(identity)
    return causes


def _check_budget(obj: Object) -> list[Cause]:
    spec = obj["spec"]
    causes = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        why = "minAvailable and maxUnavailable cannot be both set"
        causes.append(wrong_value("spec", "PodDisruptionBudgetSpec", why))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if value is None:
            continue
        if isinstance(value, str):
            if not re.fullmatch(r"[0-9]{1,2}%|100%", value):
                causes.append(wrong_value(f"spec.{field}", value, "a valid percent string"))
        elif value < 0:
            causes.append(wrong_value(f"spec.{field}", value, "must be greater than or equal to 0"))
    try:
        parse_label_selector(spec.get("selector"))
    except ApiFailure as failure:
        causes.append(wrong_value("spec.selector", "LabelSelector", str(failure)))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy not in (None, "AlwaysAllow", "IfHealthyBudget"):
        supported = ["AlwaysAllow", "IfHealthyBudget"]
        causes.append(unsupported_value("spec.unhealthyPodEvictionPolicy", policy, supported))
    return causes


def _check_pod_update(old: Object, new: Object) -> list[Cause]:
    def fixed(spec: Object) -> Object:
        kept = {
            key: value
            for key, value in spec.items()
            if key not in ("activeDeadlineSeconds", "tolerations", "nodeName")
        }
        for field in ("containers", "initContainers"):
            kept[field] = [
                {key: value for key, value in one.items() if key != "image"}
                for one in spec.get(field) or ()
            ]
        return kept

    before, after = old["spec"], new["spec"]
    kept = [
        one for one in before.get("tolerations") or () if one in (after.get("tolerations") or ())
    ]
    if (
        fixed(before) != fixed(after)
        or len(kept) != len(before.get("tolerations") or ())
        or before.get("nodeName") != after.get("nodeName")
    ):
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`, "
            "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` "
            "(only additions to existing tolerations)"
        )
        return [forbidden_value("spec", why)]
    return []


def _check_job_update(old: Object, new: Object) -> list[Cause]:
    before, after = old["spec"], new["spec"]
    causes = []
    for field in ("selector", "completionMode", "podFailurePolicy", "managedBy"):
        if before.get(field) != after.get(field):
            causes.append(wrong_value(f"spec.{field}", after.get(field), "field is immutable"))
    if before.get("completions") != after.get("completions"):
        elastic = (
            after["completionMode"] == "Indexed"
            and after.get("completions") == after.get("parallelism")
        )  # fmt: skip
        if not elastic:
            causes.append(
                wrong_value("spec.completions", after.get("completions"), "field is immutable")
            )
    if before["template"] != after["template"]:
        # Scheduling directives may change while the Job is suspended and has never started.
        started = old.get("status", {}).get("startTime") is not None
        if not before.get("suspend") or started or not _same_but_scheduling(before, after):
            causes.append(wrong_value("spec.template", "PodTemplateSpec", "field is immutable"))
    return causes


def _same_but_scheduling(before: Object, after: Object) -> bool:
    def fixed(template: Object) -> tuple[Object, Object]:
        spec = template["spec"]
        free = ("nodeSelector", "affinity", "tolerations", "schedulingGates")
        metadata = dict(template.get("metadata") or {})
        for field in ("labels", "annotations"):
            metadata.pop(field, None)
        return metadata, {key: value for key, value in spec.items() if key not in free}

    return fixed(before["template"]) == fixed(after["template"])


def _check_selector_fixed(old: Object, new: Object) -> list[Cause]:
    if old["spec"].get("selector") != new["spec"].get("selector"):
        return [wrong_value("spec.selector", "LabelSelector", "field is immutable")]
    return []


_CHECKERS: Mapping[str, Callable[[Object], list[Cause]]] = {
    "pods": _check_pod,
    "jobs": _check_job,
    "nodes": _check_node,
    "poddisruptionbudgets": _check_budget,
}
_UPDATE_CHECKERS: Mapping[str, Callable[[Object, Object], list[Cause]]] = {
    "pods": _check_pod_update,
    "jobs": _check_job_update,
    "deployments": _check_selector_fixed,
    "replicasets": _check_selector_fixed,
    "daemonsets": _check_selector_fixed,
}
