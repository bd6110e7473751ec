"""A site's diagnostic Job: read from its file, made for one node, and what its end means. Pure but for the file.

It is pinned by spec.nodeName: the scheduler, which a cordon holds off, is not asked, and no other pod
comes with it. It runs once (backoffLimit 0), ends by a deadline, and its last words are kept as the
containers' termination messages, so that no right to read logs is needed.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

from app.errors import SettingsError

LABEL = "pitwall.dev/diagnostic-of"
ANNOTATION = "pitwall.dev/diagnostic"
DEADLINE_SECONDS = 1800
"""dcgmi diag -r 3 takes up to half an hour on eight GPUs. A template may say otherwise."""

KEPT_SECONDS = 86_400
"""A finished Job stays so long in the cluster, to be looked at."""

MESSAGE_LENGTH = 2000


def load_template(path: Path | None) -> dict[str, Any] | None:
    """The Job of the site's file; None without one. Raises SettingsError with one sentence."""
    if path is None:
        return None
    where = f"PITWALL_DIAGNOSTIC_JOB={path}"
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{where} can't be read as YAML: {error}.".replace("\n", " ")
        ) from error
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (
        "batch/v1",
        "Job",
    ):
        raise SettingsError(f"{where} is no batch/v1 Job: see k8s/manifests/diagnostics/job.yaml.")
    pod = _at(document, "spec", "template", "spec")
    if (
        not isinstance(pod, dict)
        or not isinstance(pod.get("containers"), list)
        or not pod["containers"]
    ):
        raise SettingsError(f"{where} has no container in spec.template.spec: name what to run.")
    namespace = _at(document, "metadata", "namespace")
    if not isinstance(namespace, str) or not namespace:
        raise SettingsError(f"{where} has no metadata.namespace: say where diagnostics run.")
    for key in ("parallelism", "completions"):
        if document["spec"].get(key, 1) != 1:
            raise SettingsError(f"{where}: spec.{key} must be 1, one pod on one node.")
    return document


def _at(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def job_name(diagnostic_id: str) -> str:
    """Its name follows from the diagnostic, so that it is made once however often that is tried."""
    return f"pitwall-diagnostic-{diagnostic_id}"


def job_for(
    template: dict[str, Any], *, node: str, diagnostic_id: str, author: str
) -> dict[str, Any]:
    """The Job as it is created for one node."""
    job = copy.deepcopy(template)
    meta = job.setdefault("metadata", {})
    meta.pop("generateName", None)
    meta["name"] = job_name(diagnostic_id)
    _put(meta, "labels", {LABEL: node[:63]})
    _put(meta, "annotations", {ANNOTATION: diagnostic_id, "pitwall.dev/requested-by": author})
    spec = job["spec"]
    spec["backoffLimit"] = 0
    spec.setdefault("activeDeadlineSeconds", DEADLINE_SECONDS)
    spec.setdefault("ttlSecondsAfterFinished", KEPT_SECONDS)
    spec["template"].setdefault("metadata", {})
    _put(spec["template"]["metadata"], "labels", {LABEL: node[:63]})
    pod = spec["template"]["spec"]
    pod["nodeName"] = node
    pod["restartPolicy"] = "Never"
    # NoExecute taints would end it: it is wanted there, whatever is wrong with the node.
    pod["tolerations"] = [*pod.get("tolerations", []), {"operator": "Exists"}]
    for container in pod["containers"]:
        container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    return job


def _put(meta: dict[str, Any], key: str, values: dict[str, str]) -> None:
    meta[key] = {**(meta.get(key) or {}), **values}


def verdict_of(job: dict[str, Any]) -> tuple[str, str] | None:
    """passed or failed with Kubernetes's reason, once the Job has ended; None while it runs."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("status") != "True":
            continue
        if condition.get("type") == "Complete":
            return "passed", ""
        if condition.get("type") == "Failed":
            reason, message = condition.get("reason") or "", condition.get("message") or ""
            return "failed", f"{reason}: {message}".strip(": ")
    return None


def last_words(pods: list[dict[str, Any]]) -> str:
    """The containers' termination messages, with how each ended; "" where none is told."""
    said = []
    for pod in pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = (status.get("state") or {}).get("terminated") or {}
            message = str(ended.get("message") or "").strip()
            if message or ended.get("exitCode"):
                said.append(
                    f"{status.get('name')} exit {ended.get('exitCode')}: {message}".rstrip(": ")
                )
    return "; ".join(said).replace("\x00", "")[-MESSAGE_LENGTH:]
