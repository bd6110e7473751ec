"""Operations in the store: reading open ones, claiming steps, storing answers. Inside the caller's transactions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from app.operations.lease import Held, check
from app.operations.model import (
    Awaited,
    Memory,
    Offer,
    Operation,
    Options,
    Progress,
    Step,
    StepRow,
)
from app.store.reads.rows import table_of
from app.store.tables import AuditEntry, OperationNode, OperationStep, Reservation
from app.store.tables import Operation as OperationTable

_operation = table_of(OperationTable)
_node = table_of(OperationNode)
_step = table_of(OperationStep)
_audit = table_of(AuditEntry)
_reservation = table_of(Reservation)

MESSAGE_LENGTH = 2000  # characters of an answer that are kept


def open_operations(connection: Connection, cluster: str) -> list[Operation]:
    """Every open operation of the cluster with its nodes and steps, oldest first."""
    rows = connection.execute(
        select(_operation)
        .where(_operation.c.cluster == cluster, _operation.c.ended_at.is_(None))
        .order_by(_operation.c.created_at, _operation.c.id)
    ).all()
    return _operations_of(connection, rows) if rows else []


def read_operation(connection: Connection, cluster: str, operation_id: str) -> Operation | None:
    """One operation if it is open, else None."""
    row = connection.execute(
        select(_operation).where(
            _operation.c.cluster == cluster,
            _operation.c.id == operation_id,
            _operation.c.ended_at.is_(None),
        )
    ).first()
    if row is None:
        return None
    return _operations_of(connection, [row])[0]


def _operations_of(connection: Connection, rows: Sequence[Any]) -> list[Operation]:
    ids = [row.id for row in rows]
    nodes: dict[str, list[str]] = {}
    for row in connection.execute(
        select(_node.c.operation_id, _node.c.node)
        .where(_node.c.operation_id.in_(ids))
        .order_by(_node.c.node)
    ):
        nodes.setdefault(row.operation_id, []).append(row.node)
    steps: dict[str, dict[tuple[str, str], StepRow]] = {}
    for row in connection.execute(select(_step).where(_step.c.operation_id.in_(ids))):
        steps.setdefault(row.operation_id, {})[(row.name, row.target_uid)] = StepRow(
            row.name,
            row.target,
            row.target_uid,
            row.state,
            row.attempts,
            row.message,
            row.started_at,
        )
    return [_operation_of(row, tuple(nodes.get(row.id, ())), steps.get(row.id, {})) for row in rows]


def _operation_of(
    row: Any, nodes: tuple[str, ...], steps: dict[tuple[str, str], StepRow]
) -> Operation:
    return Operation(
        id=row.id,
        cluster=row.cluster,
        kind=row.kind,
        subject=row.subject,
        nodes=nodes,
        options=msgspec.convert(row.options or {}, Options),
        author=row.author,
        reason=row.reason,
        created_at=row.created_at,
        state=row.state,
        deadline_at=row.deadline_at,
        cancel_requested_by=row.cancel_requested_by,
        author_groups=_groups(row.author_groups),
        cancel_groups=_groups(row.cancel_groups),
        memory=msgspec.convert(row.memory or {}, Memory),
        steps=steps,
    )


def _groups(found: list[str] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(found)


def claim(
    connection: Connection,
    operation: Operation,
    steps: Sequence[Step],
    *,
    memory: Memory,
    message: str,
    progress: Progress,
    held: Held,
    now: datetime,
) -> bool:
    """Claims steps with the lease's epoch and stores what must be remembered of them.

    False when the operation has changed since it was read (ended, cancelled): nothing is claimed then.
    Raises LeaseLost when the lease is not ours any more.
    """
    check(connection, operation.cluster, held=held, now=now)
    if not _is_unchanged(connection, operation):
        return False
    for step in steps:
        known = operation.step(step.name, step.uid)
        values = {
            "state": "claimed",
            "epoch": held.epoch,
            "message": step.message,
            "started_at": now,
            "ended_at": None,
        }
        if known is None:
            connection.execute(
                insert(_step).values(
                    operation_id=operation.id,
                    cluster=operation.cluster,
                    name=step.name,
                    target=step.target,
                    target_uid=step.uid,
                    attempts=1,
                    **values,
                )
            )
        else:
            connection.execute(
                update(_step)
                .where(
                    _step.c.operation_id == operation.id,
                    _step.c.name == step.name,
                    _step.c.target_uid == step.uid,
                )
                .values(attempts=_step.c.attempts + 1, **values)
            )
    state = "Cancelling" if operation.cancel_requested_by or memory.stopped else "Running"
    connection.execute(
        update(_operation)
        .where(_operation.c.id == operation.id)
        .values(
            state=state,
            message=message,
            choices=[],
            updated_at=now,
            **_remembered(memory, progress),
        )
    )
    return True


def store_answer(
    connection: Connection,
    operation: Operation,
    step: Step,
    *,
    state: str,
    message: str,
    now: datetime,
    outcome: str | None,
    author: str = "",
) -> None:
    """Stores a step's answer, and an audit row unless outcome is None (a step that only looked).

    author: in whose name it was taken, where that is not the operation's author.
    """
    connection.execute(
        update(_step)
        .where(
            _step.c.operation_id == operation.id,
            _step.c.name == step.name,
            _step.c.target_uid == step.uid,
        )
        .values(
            state=state,
            message=message[:MESSAGE_LENGTH],
            ended_at=now if state in ("done", "failed") else None,
        )
    )
    if outcome is not None:
        audit(
            connection,
            operation.cluster,
            at=now,
            author=author or operation.author,
            action=step.name,
            target=step.target,
            target_uid=step.uid,
            operation_id=operation.id,
            outcome=outcome,
            message=message,
        )


def store_memory(
    connection: Connection, operation: Operation, memory: Memory, *, now: datetime
) -> None:
    """Stores what an answer taught. Choices that a person made meanwhile are kept."""
    row = connection.execute(
        select(_operation.c.memory).where(_operation.c.id == operation.id).with_for_update()
    ).first()
    document = msgspec.to_builtins(memory)
    if row is not None:
        document["choices"] = (row.memory or {}).get("choices", document["choices"])
    connection.execute(
        update(_operation)
        .where(_operation.c.id == operation.id)
        .values(memory=document, updated_at=now)
    )


def store_look(
    connection: Connection,
    operation: Operation,
    *,
    state: str,
    message: str,
    choices: Sequence[Offer],
    memory: Memory,
    progress: Progress,
    held: Held,
    now: datetime,
    ended: bool,
) -> bool:
    """Stores what a look came to when no step was taken: state, message, choices, progress, memory.

    False when a request (cancel, a choice) has changed the operation since it was read: nothing is
    stored then, and the next look sees it. Raises LeaseLost.
    """
    check(connection, operation.cluster, held=held, now=now)
    if not _is_unchanged(connection, operation):
        return False
    for awaited in progress.awaited:
        _store_awaited(connection, operation, awaited, now=now)
    connection.execute(
        update(_operation)
        .where(_operation.c.id == operation.id)
        .values(
            state=state,
            message=message[:MESSAGE_LENGTH],
            choices=[msgspec.to_builtins(choice) for choice in choices],
            updated_at=now,
            ended_at=now if ended else None,
            **_remembered(memory, progress),
        )
    )
    if ended:
        connection.execute(
            update(_node).where(_node.c.operation_id == operation.id).values(open=False)
        )
        connection.execute(
            update(_reservation)
            .where(
                _reservation.c.operation_id == operation.id, _reservation.c.released_at.is_(None)
            )
            .values(released_at=now)
        )
    return True


def _is_unchanged(connection: Connection, operation: Operation) -> bool:
    """Whether no request has touched the operation since it was read."""
    row = connection.execute(
        select(_operation.c.ended_at, _operation.c.cancel_requested_by, _operation.c.memory)
        .where(_operation.c.id == operation.id)
        .with_for_update()
    ).first()
    if row is None or row.ended_at is not None:
        return False
    if row.cancel_requested_by != operation.cancel_requested_by:
        return False
    choices = (row.memory or {}).get("choices", [])
    return len(choices) == len(operation.memory.choices)


def _store_awaited(
    connection: Connection, operation: Operation, awaited: Awaited, *, now: datetime
) -> None:
    state = "done" if awaited.done else "waiting"
    known = operation.step(awaited.name, awaited.uid)
    if known is not None and known.state == state and known.message == awaited.message:
        return
    values = {
        "state": state,
        "message": awaited.message[:MESSAGE_LENGTH],
        "ended_at": now if awaited.done else None,
    }
    if known is None:
        connection.execute(
            insert(_step).values(
                operation_id=operation.id,
                cluster=operation.cluster,
                name=awaited.name,
                target=awaited.target,
                target_uid=awaited.uid,
                started_at=now,
                attempts=1,
                epoch=0,
                **values,
            )
        )
    else:
        connection.execute(
            update(_step)
            .where(
                _step.c.operation_id == operation.id,
                _step.c.name == awaited.name,
                _step.c.target_uid == awaited.uid,
            )
            .values(**values)
        )


def _remembered(memory: Memory, progress: Progress) -> dict[str, Any]:
    return {
        "memory": msgspec.to_builtins(memory),
        "nodes_state": progress.nodes_state,
        "workloads_state": progress.workloads_state,
        "pods_total": progress.pods_total,
        "pods_done": progress.pods_done,
    }


def audit(
    connection: Connection,
    cluster: str,
    *,
    at: datetime,
    author: str,
    action: str,
    target: str,
    target_uid: str = "",
    operation_id: str | None = None,
    outcome: str = "done",
    message: str = "",
    dry_run: bool = False,
) -> None:
    """Appends one audit row; the worker is the actor."""
    connection.execute(
        insert(_audit).values(
            cluster=cluster,
            at=at,
            author=author,
            actor="worker",
            action=action,
            target=target,
            target_uid=target_uid,
            operation_id=operation_id,
            dry_run=dry_run,
            outcome=outcome,
            message=message[:MESSAGE_LENGTH],
        )
    )
