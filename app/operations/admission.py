"""Accepting: limits, conflicts, capacity and the approved plan, judged and reserved in one transaction.

The store has one writer at a time, so what is counted here stays so until the operation is in.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, or_, select

from app.errors import RequestRefused
from app.limits import RATE_WINDOW_SECONDS, Limits, LimitSettings, is_gpu_node, judge_limits
from app.operations.model import Memory
from app.operations.plan import NO_ROOM, NodeFacts, Wish, build_plan, is_accepted, wished_pods
from app.operations.plan_hash import changes
from app.operations.wishes import Parameters
from app.settings import Settings
from app.store.reads.rows import table_of
from app.store.tables import Node, OperationNode, Request, Reservation
from app.store.tables import Operation as OperationTable
from k8s.objects import gpu_request, is_terminal
from k8s.view import ClusterView

_node = table_of(Node)
_held = table_of(OperationNode)
_operation = table_of(OperationTable)
_request = table_of(Request)
_reservation = table_of(Reservation)

CHANGES_SHOWN = 5


def read_facts(
    connection: Connection, cluster: str, names: Iterable[str] | None = None
) -> dict[str, NodeFacts]:
    """What the store says of nodes, and of every one that is Failing or on Probation; of all of them without
    names."""
    statement = select(
        _node.c.name, _node.c.block, _node.c.rack, _node.c.health, _node.c.service
    ).where(_node.c.cluster == cluster)
    if names is not None:
        statement = statement.where(
            or_(
                _node.c.name.in_(list(names)),
                _node.c.health == "Failing",
                _node.c.service == "Probation",
            )
        )
    return {
        row.name: NodeFacts(row.block, row.rack, row.health, row.service)
        for row in connection.execute(statement)
    }


def plan_of(
    connection: Connection,
    cluster: str,
    wish: Wish,
    *,
    view: ClusterView,
    settings: Settings,
    now: datetime,
) -> dict[str, Any]:
    """The plan as of now, with the limits and reservations that the store says."""
    plan = build_plan(
        wish,
        view=view,
        facts=read_facts(connection, cluster, wish.nodes),
        reserved=read_reserved(connection, cluster, view),
        limits=_limits(connection, cluster, wish, view=view, settings=settings, now=now),
        now=now,
        valid_seconds=settings.plan_valid_seconds,
    )
    for node, operation_id in held_nodes(connection, cluster).items():
        if node in wish.nodes:
            plan["blockers"].append(_conflict(node, operation_id))
    return plan


def accept(
    connection: Connection,
    cluster: str,
    wish: Wish,
    *,
    request: Any,
    parameters: Parameters,
    view: ClusterView,
    settings: Settings,
    now: datetime,
) -> str:
    """Opens the operation and holds its nodes; gives its id. Raises RequestRefused, nothing being kept then."""
    held = held_nodes(connection, cluster)
    for node in wish.nodes:
        if node in held:
            raise RequestRefused(_conflict(node, held[node]), code="conflict")
    if wish.workload is not None:
        _refuse_second_restart(connection, cluster, wish.workload.uid)
    plan = plan_of(connection, cluster, wish, view=view, settings=settings, now=now)
    _refuse_over_limits(
        plan
    )  # before the plan's hash: a last place taken meanwhile is a limit's no
    if parameters.plan_hash:
        _hold_to_approval(
            connection, cluster, parameters.plan_hash, plan, settings=settings, now=now
        )
    _refuse(plan, wish)
    options = msgspec.to_builtins(wish.options)
    if wish.action == "reschedule":
        options["pods"] = [pod.metadata.uid for pod in wished_pods(wish, view)]
    subject = wish.workload.said if wish.workload is not None else ", ".join(wish.nodes)
    deadline_at = (
        now + timedelta(seconds=wish.deadline_seconds)
        if wish.deadline_seconds is not None
        else None
    )
    operation_id = open_operation(
        connection,
        cluster,
        kind=wish.action,
        subject=subject,
        nodes=wish.nodes,
        request=request,
        now=now,
        mode=wish.options.mode,
        options=options,
        plan=plan,
        deadline_at=deadline_at,
    )
    for node, gpus in plan["reserve"].items():
        connection.execute(
            insert(_reservation).values(
                cluster=cluster, operation_id=operation_id, node=node, gpus=gpus, created_at=now
            )
        )
    return operation_id


def open_operation(
    connection: Connection,
    cluster: str,
    *,
    kind: str,
    subject: str,
    nodes: Iterable[str],
    request: Any,
    now: datetime,
    mode: str = "now",
    options: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    deadline_at: datetime | None = None,
) -> str:
    """Writes an operation that is Running and holds its nodes; gives its id."""
    operation_id = uuid.uuid4().hex[:12]
    connection.execute(
        insert(_operation).values(
            id=operation_id,
            cluster=cluster,
            kind=kind,
            subject=subject,
            mode=mode,
            options=dict(options or {}),
            author=request.author,
            reason=request.reason,
            request_id=request.id,
            plan=dict(plan or {}),
            plan_hash=(plan or {}).get("hash", ""),
            state="Running",
            message="Accepted.",
            choices=[],
            memory=msgspec.to_builtins(Memory()),
            nodes_state={},
            workloads_state={},
            pods_total=sum(
                1 for pod in (plan or {}).get("pods", ()) if pod["action"] not in ("skip", "block")
            ),
            pods_done=0,
            deadline_at=deadline_at,
            created_at=now,
            updated_at=now,
        )
    )
    for node in nodes:
        # A second open row for a node can't be: the partial unique index refuses it.
        connection.execute(
            insert(_held).values(operation_id=operation_id, cluster=cluster, node=node, open=True)
        )
    return operation_id


def held_nodes(connection: Connection, cluster: str) -> dict[str, str]:
    """Nodes that an open operation holds, and which."""
    rows = connection.execute(
        select(_held.c.node, _held.c.operation_id).where(_held.c.cluster == cluster, _held.c.open)
    )
    return {row.node: row.operation_id for row in rows}


def read_reserved(connection: Connection, cluster: str, view: ClusterView) -> dict[str, int]:
    """GPUs by node that open operations still count on, beyond what their own jobs use there now."""
    reserved: dict[tuple[str, str], int] = {}
    for row in connection.execute(
        select(_reservation.c.operation_id, _reservation.c.node, _reservation.c.gpus).where(
            _reservation.c.cluster == cluster, _reservation.c.released_at.is_(None)
        )
    ):
        reserved[(row.operation_id, row.node)] = row.gpus
    if not reserved:
        return {}
    plans = connection.execute(
        select(_operation.c.id, _operation.c.plan).where(
            _operation.c.id.in_({operation_id for operation_id, _ in reserved})
        )
    )
    for plan in plans:
        for job in plan.plan.get("jobs", ()):
            for pod in view.pods_of(job["uid"]):
                key = (plan.id, pod.spec.node_name)
                if key in reserved and not is_terminal(pod):
                    reserved[key] -= gpu_request(pod)
    total: dict[str, int] = {}
    for (_, node), gpus in reserved.items():
        if gpus > 0:
            total[node] = total.get(node, 0) + gpus
    return total


def _limits(
    connection: Connection,
    cluster: str,
    wish: Wish,
    *,
    view: ClusterView,
    settings: Settings,
    now: datetime,
) -> Limits:
    taken = connection.execute(
        select(func.count(func.distinct(_held.c.node)))
        .select_from(_held.join(_operation, _operation.c.id == _held.c.operation_id))
        .where(
            _held.c.cluster == cluster,
            _operation.c.kind.in_(("drain", "reschedule")),
            _operation.c.created_at > now - timedelta(seconds=RATE_WINDOW_SECONDS),
            _held.c.node.not_in(wish.nodes),
        )
    ).scalar_one()
    gpu_nodes = {name for name in wish.nodes if is_gpu_node(view.nodes[name])}
    return judge_limits(
        gpu_nodes,
        view=view,
        held=set(held_nodes(connection, cluster)),
        taken_in_window=int(taken),
        settings=LimitSettings(
            settings.max_unavailable_nodes_ratio,
            settings.max_drains_per_hour,
            settings.max_drains_per_hour_ratio,
        ),
    )


def _refuse_over_limits(plan: Mapping[str, Any]) -> None:
    """Raises RequestRefused when a limit stands against the plan; limits hold for force too."""
    if plan["limits"]["verdict"] == "refused":
        lines = [line for line in plan["limits"]["lines"] if line["after"] > line["limit"]]
        raise RequestRefused(" ".join(line["message"] for line in lines), code="limit")


def _refuse(plan: Mapping[str, Any], wish: Wish) -> None:
    """Raises RequestRefused when anything but a limit stands against the plan."""
    if not plan["blockers"]:
        return
    text = " ".join(plan["blockers"])
    if any(budget["kind"] != "exhausted" for budget in plan["budgets"]):
        raise RequestRefused(text, code="budget")
    if any(pod["action"] == "block" for pod in plan["pods"]):
        raise RequestRefused(text, code="protected")
    no_room = [
        job
        for job in plan["jobs"]
        if job["fit"]["verdict"] in NO_ROOM
        and not is_accepted(job, wish.options.accept_no_capacity)
    ]
    raise RequestRefused(text, code="capacity" if no_room else "conflict")


def _hold_to_approval(
    connection: Connection,
    cluster: str,
    plan_hash: str,
    plan: Mapping[str, Any],
    *,
    settings: Settings,
    now: datetime,
) -> None:
    approved = _previewed(connection, cluster, plan_hash, settings=settings, now=now)
    if approved is not None and datetime.fromisoformat(approved["expires_at"]) < now:
        raise RequestRefused(
            f"The plan {plan_hash} was good until {approved['expires_at'][11:19]} UTC: look at a new one.",
            code="plan_expired",
        )
    if plan["hash"] == plan_hash:
        if approved is None:
            raise RequestRefused(
                f"The plan {plan_hash} was never shown, or too long ago: look at a new one.",
                code="plan_expired",
            )
        return
    said = changes(approved, plan) if approved is not None else []
    more = f" and {len(said) - CHANGES_SHOWN} more changes" if len(said) > CHANGES_SHOWN else ""
    what = "; ".join(said[:CHANGES_SHOWN]) or "it was made for something else"
    raise RequestRefused(
        f"The plan has changed since it was approved: {what}{more}. Look at the new plan, {plan['hash']}.",
        code="plan_changed",
    )


def _previewed(
    connection: Connection, cluster: str, plan_hash: str, *, settings: Settings, now: datetime
) -> dict[str, Any] | None:
    """The last plan with that hash that was shown, looked for in twice the time it is good for."""
    rows = connection.execute(
        select(_request.c.answer)
        .where(
            _request.c.cluster == cluster,
            _request.c.state == "answered",
            _request.c.kind == "preview",
            _request.c.created_at > now - timedelta(seconds=2 * settings.plan_valid_seconds + 60),
        )
        .order_by(_request.c.created_at.desc())
    )
    return next((row.answer for row in rows if row.answer.get("hash") == plan_hash), None)


def _refuse_second_restart(connection: Connection, cluster: str, uid: str) -> None:
    rows = connection.execute(
        select(_operation.c.id, _operation.c.options, _operation.c.memory).where(
            _operation.c.cluster == cluster, _operation.c.ended_at.is_(None)
        )
    )
    for row in rows:
        if row.options.get("job") == uid or uid in (row.memory or {}).get("units", {}):
            raise RequestRefused(
                f"Operation {row.id} is bringing this job back already: wait for it or cancel it.",
                code="conflict",
            )


def _conflict(node: str, operation_id: str) -> str:
    return f"{node} is held by operation {operation_id}: wait for it, or cancel it first."
