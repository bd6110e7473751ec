"""What a request asks for, checked against its schema and the cluster. Pure.

Raises RequestRefused with a stable code and one sentence that says what to do.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from app.errors import RequestRefused
from app.operations.model import Options
from app.operations.plan import Wish
from app.operations.survey import is_dead, live_pods
from k8s.view import ClusterView
from k8s.workloads import owner_of
from k8s.workloads.kind import Workload

MAX_NODES = 500
"""Nodes in one request; a rack or a block is far below it."""

MODES = ("now", "complete", "deadline")


class Parameters(msgspec.Struct, frozen=True):
    """Parameters of every kind of request; which are used depends on the kind."""

    action: str = ""
    nodes: list[str] | None = None
    job: str | None = None
    mode: str = "now"
    deadline_seconds: float | None = None
    delete_emptydir_data: bool = False
    force: bool = False
    accept_no_capacity: list[str] | str | bool | None = None
    confirmation: str = ""
    plan_hash: str | None = None
    operation_id: str = ""
    choice: str = ""
    text: str = ""


def read_parameters(document: Mapping[str, Any]) -> Parameters:
    """The parameters of a request. Raises RequestRefused when one has the wrong type."""
    try:
        return msgspec.convert(document, Parameters)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"The request can't be read: {error}.") from error


def read_wish(
    action: str,
    parameters: Parameters,
    *,
    view: ClusterView,
    health: Mapping[str, str],
) -> Wish:
    """The drain or reschedule that is asked for. health: of nodes by name. Raises RequestRefused."""
    accepted = _accepted(parameters)
    if action == "drain":
        return Wish(
            "drain",
            read_nodes(parameters, view=view),
            Options(
                mode=_mode(parameters),
                delete_emptydir_data=parameters.delete_emptydir_data,
                force=parameters.force,
                accept_no_capacity=accepted,
            ),
            deadline_seconds=parameters.deadline_seconds,
        )
    if action == "reschedule":
        workload = _workload(parameters.job or "", view)
        options = Options(
            delete_emptydir_data=True,  # the whole job is restarted: its pods' scratch goes with them
            force=parameters.force,
            accept_no_capacity=accepted,
            job=workload.uid,
        )
        nodes = _unfit_nodes(workload, view=view, health=health)
        return Wish("reschedule", nodes, options, workload=workload)
    raise RequestRefused(f"A preview of {action!r} is not known: ask for drain or reschedule.")


def read_nodes(parameters: Parameters, *, view: ClusterView) -> tuple[str, ...]:
    """The nodes named, once each, in order. Raises RequestRefused."""
    names = tuple(sorted(set(parameters.nodes or ())))
    if not names:
        raise RequestRefused("No node is named: name at least one.")
    if len(names) > MAX_NODES:
        raise RequestRefused(f"{len(names)} nodes are named, {MAX_NODES} may be at once.")
    unknown = [name for name in names if name not in view.nodes]
    if unknown:
        raise RequestRefused(
            f"Kubernetes knows no node {', '.join(unknown[:5])}: check the name with `pitwall nodes`.",
            code="not_found",
        )
    return names


def _mode(parameters: Parameters) -> str:
    mode, seconds = parameters.mode, parameters.deadline_seconds
    if mode not in MODES:
        raise RequestRefused(f"Mode {mode!r} is none of {', '.join(MODES)}.")
    if mode == "deadline" and (seconds is None or not 0 < seconds < 366 * 86400):
        raise RequestRefused(
            "Mode deadline needs deadline_seconds, more than 0 and less than a year."
        )
    if mode != "deadline" and seconds is not None:
        raise RequestRefused(f"deadline_seconds means nothing in mode {mode}.")
    return mode


def _accepted(parameters: Parameters) -> tuple[str, ...]:
    """Names of jobs that a person has typed, from the field of its own or the CLI's confirmation."""
    given = parameters.accept_no_capacity
    if isinstance(given, bool):
        raise RequestRefused("accept_no_capacity takes the names of the jobs, not a yes.")
    words = [given] if isinstance(given, str) else list(given or ())
    words.append(parameters.confirmation)
    names = [name for word in words for name in word.replace(",", " ").split()]
    return tuple(dict.fromkeys(names))


def _workload(text: str, view: ClusterView) -> Workload:
    found = _matching(text, view)
    if not found:
        owner = _owner_only_named(text, view)
        if owner is not None:
            raise RequestRefused(
                f"{owner.said} is known only as the owner of its pods, so it can't be restarted: drain "
                "the nodes that they must leave.",
                code="protected",
            )
        raise RequestRefused(
            f"There is no job {text or '(none named)'}: give namespace/name or its UID.",
            code="not_found",
        )
    if len(found) > 1:
        names = ", ".join(f"{each.namespace}/{each.name}" for each in found[:5])
        raise RequestRefused(f"{text} is ambiguous ({names}): give namespace/name.")
    workload = found[0]
    if workload.finished is not None:
        raise RequestRefused(f"{workload.said} has ended: there is nothing to restart.")
    if workload.suspended:
        raise RequestRefused(f"{workload.said} is suspended: resume it where it was suspended.")
    if workload.restart_path == "none":
        raise RequestRefused(
            f"{workload.said} is not restarted: {workload.refusal or 'its kind is not known'}.",
            code="protected",
        )
    return workload


def _matching(text: str, view: ClusterView) -> list[Workload]:
    if text in view.workloads:
        return [view.workloads[text]]
    namespace, _, name = text.rpartition("/")
    return [
        workload
        for workload in view.workloads.values()
        if workload.name == name and namespace in ("", workload.namespace)
    ]


def _owner_only_named(text: str, view: ClusterView) -> Workload | None:
    """A workload that is known only as the owner of pods, as `pitwall jobs` lists it too."""
    for pod in view.pods.values():
        owner = owner_of(pod, view)
        if owner is not None and text in (owner.uid, owner.name, f"{owner.namespace}/{owner.name}"):
            return owner
    return None


def _unfit_nodes(
    workload: Workload, *, view: ClusterView, health: Mapping[str, str]
) -> tuple[str, ...]:
    nodes: Collection[str] = {
        pod.spec.node_name for pod in live_pods(workload, view) if pod.spec.node_name
    }
    return tuple(
        sorted(
            name
            for name in nodes
            if name in view.nodes and (health.get(name) == "Failing" or is_dead(name, view))
        )
    )
