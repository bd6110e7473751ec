"""A person's wish for a diagnostic on a node that is out of service. In the caller's transaction."""

from typing import Any

from app.errors import RequestRefused
from app.operations import admission
from app.operations.case import Case
from app.operations.diagnostics import job_for
from app.operations.pause import refuse_if_paused
from app.operations.wishes import read_nodes
from app.store.writes.repairs import open_diagnostic
from k8s.objects import gpu_request, is_terminal

MOST_NODES = 32
"""Diagnostics asked for at once: they load what feeds the nodes. Our judgement."""


def diagnose(case: Case, template: dict[str, Any] | None) -> dict[str, Any]:
    """Notes which diagnostics to run; with dry_run what they would be. Raises RequestRefused, nothing being kept then.

    A node must be cordoned, and no pod may have GPUs on it: a diagnostic would take them from a job.
    """
    if template is None:
        raise RequestRefused(
            "There is no diagnostic to run: PITWALL_DIAGNOSTIC_JOB of the worker names none (docs/repair.md)."
        )
    refuse_if_paused(case.connection, case.cluster)
    nodes = read_nodes(case.parameters, view=case.view)
    if len(nodes) > MOST_NODES:
        raise RequestRefused(f"At most {MOST_NODES} diagnostics are asked for at once.")
    held = admission.held_nodes(case.connection, case.cluster)
    for name in nodes:
        _refuse_unfit(name, case, held)
    namespace = str(template["metadata"]["namespace"])
    author = case.request.author
    if case.parameters.dry_run:
        jobs = [
            job_for(template, node=name, diagnostic_id="preview", author=author) for name in nodes
        ]
        return {"jobs": jobs}
    made = [
        open_diagnostic(
            case.connection,
            case.cluster,
            node=name,
            node_uid=case.view.nodes[name].metadata.uid,
            request=case.request,
            namespace=namespace,
            now=case.now,
        )
        for name in nodes
    ]
    return {"diagnostics": made}


def _refuse_unfit(name: str, case: Case, held: dict[str, str]) -> None:
    if not case.view.nodes[name].spec.unschedulable:
        raise RequestRefused(
            f"{name} is schedulable, so jobs may run on it: drain it first.", code="conflict"
        )
    if name in held:
        raise RequestRefused(
            f"{name} is held by operation {held[name]}: wait for it, or cancel it first.",
            code="conflict",
        )
    for pod in case.view.pods_on(name):
        if gpu_request(pod) and not is_terminal(pod):
            raise RequestRefused(
                f"{pod.metadata.namespace}/{pod.metadata.name} has GPUs on {name}: a diagnostic would take them "
                "from it. Drain the node first.",
                code="conflict",
            )
