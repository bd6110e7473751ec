"""What a request asks for, checked against its schema and the cluster. Pure.

Raises RequestRefused with a stable code and one sentence that says what to do.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from app.errors import RequestRefused
from app.operations.model import Options, Wish
from app.operations.modes import COMPLETE, DEADLINE, MODES, NOW
from app.operations.survey import is_dead, live_pods
from k8s.view import ClusterView
from k8s.workloads import owner_of
from k8s.workloads.kind import Workload

MAX_NODES = 500
"""Nodes in one request; a rack or a block is far below it."""


class Parameters(msgspec.Struct, frozen=True):
    """Parameters of every kind of request; which are used depends on the kind."""

    action: str = ""
    nodes: list[str] | None = None
    racks: list[str] | None = None
    blocks: list[str] | None = None
    incident: str = ""
    job: str | None = None
    mode: str = "now"
    modes: dict[str, str] | None = None  # namespace/name of a pod or workload -> mode
    deadline_seconds: float | None = None
    delete_emptydir_data: bool = False
    force: bool = False
    accept_no_capacity: list[str] | str | bool | None = None
    accept_protected: list[str] | str | None = None
    past_limits: list[str] | str | None = None
    confirmation: str = ""
    plan_hash: str | None = None
    operation_id: str = ""
    choice: str = ""
    text: str = ""
    repair: str = ""  # what is asked of whoever repairs: one of REPAIR_ACTIONS
    request_id: str = ""
    limit: str = ""
    automatic: bool = False
    dry_run: bool = False  # of diagnose: only say what would be made


class Pace(msgspec.Struct, frozen=True):
    """How fast the units of a drain leave, as the site sets it."""

    spacing_seconds: float = 0.0
    units_at_once: int = 0


ALL_AT_ONCE = Pace()


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
    pace: Pace = ALL_AT_ONCE,
) -> Wish:
    """The drain or reschedule that is asked for. health: of nodes by name. Raises RequestRefused."""
    accepted = _accepted(parameters)
    protected = _words(parameters.accept_protected)
    past_limits = frozenset(_words(parameters.past_limits))
    if action == "drain":
        nodes = read_nodes(parameters, view=view)
        return Wish(
            "drain",
            nodes,
            Options(
                mode=_mode(parameters),
                modes=_modes(parameters, nodes, view),
                delete_emptydir_data=parameters.delete_emptydir_data,
                force=parameters.force,
                accept_no_capacity=accepted,
                accept_protected=protected,
                spacing_seconds=pace.spacing_seconds,
                units_at_once=pace.units_at_once,
            ),
            deadline_seconds=parameters.deadline_seconds,
            past_limits=past_limits,
            automatic=parameters.automatic,
        )
    if action == "reschedule":
        workload = _workload(parameters.job or "", view)
        options = Options(
            delete_emptydir_data=True,  # the whole job is restarted: its pods' scratch goes with them
            force=parameters.force,
            accept_no_capacity=accepted,
            accept_protected=protected,
            job=workload.uid,
        )
        nodes = _unfit_nodes(workload, view=view, health=health)
        return Wish(
            "reschedule",
            nodes,
            options,
            workload=workload,
            past_limits=past_limits,
            automatic=parameters.automatic,
        )
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
    if seconds is not None and not 0 < seconds < 366 * 86400:
        raise RequestRefused("deadline_seconds must be more than 0 and less than a year.")
    if mode == DEADLINE and seconds is None:
        raise RequestRefused("Mode deadline needs deadline_seconds.")
    named = {mode, *(parameters.modes or {}).values()}
    if seconds is not None and named <= {NOW, COMPLETE}:
        raise RequestRefused(f"deadline_seconds means nothing in mode {mode}.")
    return mode


def _modes(parameters: Parameters, nodes: Collection[str], view: ClusterView) -> dict[str, str]:
    """Modes that differ, by pod or by workload; a gang's by the gang, whichever of its pods was named."""
    modes: dict[str, str] = {}
    for name, mode in (parameters.modes or {}).items():
        if mode not in MODES:
            raise RequestRefused(f"Mode {mode!r} of {name} is none of {', '.join(MODES)}.")
        if mode == DEADLINE and parameters.deadline_seconds is None:
            raise RequestRefused(f"Mode deadline of {name} needs deadline_seconds.")
        key = _mode_key(name, nodes, view)
        if modes.setdefault(key, mode) != mode:
            raise RequestRefused(
                f"{key} moves as one, so its pods have one mode: {modes[key]} or {mode}."
            )
    return {key: mode for key, mode in modes.items() if mode != parameters.mode}


def _mode_key(name: str, nodes: Collection[str], view: ClusterView) -> str:
    for node in nodes:
        for pod in view.pods_on(node):
            owner = owner_of(pod, view)
            own = f"{pod.metadata.namespace}/{pod.metadata.name}"
            owners = f"{owner.namespace}/{owner.name}" if owner is not None else None
            if name == owners:
                return name
            if name == own:
                gang = owner is not None and owner.restart_path == "suspend_resume"
                return owners if gang and owners is not None else own
    raise RequestRefused(
        f"No pod or job {name} is on these nodes: give namespace/name as the preview does.",
        code="not_found",
    )


def _words(given: list[str] | str | None) -> tuple[str, ...]:
    """Names that a person has typed, once each."""
    words = [given] if isinstance(given, str) else list(given or ())
    return tuple(dict.fromkeys(name for word in words for name in word.replace(",", " ").split()))


def _accepted(parameters: Parameters) -> tuple[str, ...]:
    """Names of jobs that a person has typed, from the field of its own or the CLI's confirmation."""
    given = parameters.accept_no_capacity
    if isinstance(given, bool):
        raise RequestRefused("accept_no_capacity takes the names of the jobs, not a yes.")
    words = [given] if isinstance(given, str) else list(given or ())
    return _words([*words, parameters.confirmation])


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
        if workload.name == name
        and namespace in ("", workload.namespace)
        and not _is_part(workload, view)
    ]


def _is_part(workload: Workload, view: ClusterView) -> bool:
    """True for what another known workload is made of: a TrainJob's JobSet has its very name."""
    owner = view.controllers.get(workload.uid)
    return owner is not None and owner.uid in view.workloads


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
