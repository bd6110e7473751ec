"""Accepting: limits, conflicts, capacity and the approved plan, judged and reserved in one transaction.

The store has one writer at a time, so what is counted here stays so until the operation is in.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from app.errors import RequestRefused
from app.operations.approval import is_needed
from app.operations.counted import held_nodes, read_facts, read_limits, read_reserved
from app.operations.model import Memory, Wish
from app.operations.objections import NO_ROOM, is_accepted
from app.operations.pause import refuse_if_paused
from app.operations.plan import build_plan, wished_pods
from app.operations.plan_hash import void_text
from app.operations.trips import refuse_if_tripped
from app.operations.wishes import Parameters
from app.settings import Settings
from app.store.reads.rows import table_of
from app.store.tables import Node, OperationNode, Request, Reservation
from app.store.tables import Operation as OperationTable
from k8s.view import ClusterView

_node = table_of(Node)
_held = table_of(OperationNode)
_operation = table_of(OperationTable)
_request = table_of(Request)
_reservation = table_of(Reservation)


class LimitRefused(RequestRefused):
    """Limits stand against it; names says which."""

    def __init__(self, message: str, *, names: tuple[str, ...]) -> None:
        super().__init__(message, code="limit")
        self.names = names


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
        limits=read_limits(connection, cluster, wish, view=view, settings=settings, now=now),
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
    """Judges and opens an operation at once; gives its id. Raises RequestRefused, nothing being kept then."""
    plan = judge(
        connection,
        cluster,
        wish,
        parameters=parameters,
        view=view,
        settings=settings,
        now=now,
    )
    if is_needed(plan, settings):
        raise RequestRefused(
            f"It stops {plan['gpus_stopped']} GPUs, more than {settings.approval_gpus}: a person must ask "
            "for it, and a second one approve.",
            code="approval_needed",
        )
    return open_planned(connection, cluster, wish, plan, request=request, view=view, now=now)


def judge(
    connection: Connection,
    cluster: str,
    wish: Wish,
    *,
    parameters: Parameters,
    view: ClusterView,
    settings: Settings,
    now: datetime,
) -> dict[str, Any]:
    """The plan of what may be done now. Raises RequestRefused when it may not.

    parameters.automatic: nobody asked; such a one is refused while a limit is tripped.
    """
    refuse_if_paused(connection, cluster)
    if parameters.automatic:
        _refuse_typed(wish)
        refuse_if_tripped(connection, cluster)
    held = held_nodes(connection, cluster)
    for node in wish.nodes:
        if node in held:
            raise RequestRefused(_conflict(node, held[node]), code="conflict")
    if wish.workload is not None:
        _refuse_second_restart(connection, cluster, wish.workload.uid)
    plan = plan_of(connection, cluster, wish, view=view, settings=settings, now=now)
    refuse_over_limits(plan)  # before the plan's hash: a last place taken meanwhile is a limit's no
    if parameters.plan_hash:
        _hold_to_approval(
            connection, cluster, parameters.plan_hash, plan, settings=settings, now=now
        )
    _refuse(plan, wish)
    return plan


def _refuse_typed(wish: Wish) -> None:
    """What a person must type can't come from a program that nobody watches."""
    options = wish.options
    if options.force or options.accept_no_capacity or options.accept_protected or wish.past_limits:
        raise RequestRefused(
            "An automatic operation neither forces nor goes past limits, protection or capacity: ask as a person."
        )


def open_planned(
    connection: Connection,
    cluster: str,
    wish: Wish,
    plan: dict[str, Any],
    *,
    request: Any,
    view: ClusterView,
    now: datetime,
) -> str:
    """Opens the operation of a plan that was judged in this transaction, and holds its nodes; gives its id."""
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
    held = {"cluster": cluster, "operation_id": operation_id, "created_at": now}
    if reserve := [{**held, "node": node, "gpus": gpus} for node, gpus in plan["reserve"].items()]:
        connection.execute(insert(_reservation), reserve)
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
            author_groups=request.author_groups,
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


def refuse_over_limits(plan: Mapping[str, Any]) -> None:
    """Raises RequestRefused when a limit stands against the plan; limits hold for force too."""
    if plan["limits"]["verdict"] == "refused":
        lines = [
            line
            for line in plan["limits"]["lines"]
            if line["after"] > line["limit"] and not line["passed"]
        ]
        text = " ".join(line["message"] for line in lines)
        names = ", ".join(dict.fromkeys(line["name"] for line in lines))
        if all(line["passable"] for line in lines):
            text += f" To go past it all the same, type {names} (--past-limits)."
        raise LimitRefused(text, names=tuple(line["name"] for line in lines))


def _refuse(plan: Mapping[str, Any], wish: Wish) -> None:
    """Raises RequestRefused when anything but a limit stands against the plan."""
    if not plan["blockers"]:
        return
    text = " ".join(plan["blockers"])
    if any(budget["kind"] != "exhausted" for budget in plan["budgets"]):
        raise RequestRefused(text, code="budget")
    guarded = any(not one["accepted"] for one in plan["protected"])
    if guarded or any(pod["action"] == "block" for pod in plan["pods"]):
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
    raise RequestRefused(
        f"{void_text(approved, plan)} Look at the new plan, {plan['hash']}.", code="plan_changed"
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
