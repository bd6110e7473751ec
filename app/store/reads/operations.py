"""Reads of operations and their steps."""

import msgspec
from sqlalchemy import Engine, and_, or_, select

from app.store.engine import read
from app.store.reads.rows import columns_of, known_cursor, limited, table_of
from app.store.records import OperationRecord, StepRecord
from app.store.tables import Operation, OperationNode, OperationStep

_OPERATION = table_of(Operation)
_NODE = table_of(OperationNode)
_STEP = table_of(OperationStep)


def operations(
    engine: Engine,
    cluster: str,
    *,
    open_only: bool = False,
    node: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[OperationRecord]:
    """Operations, newest first, without their steps. `after` is the id of the last one had."""
    statement = select(*columns_of(Operation, OperationRecord)).where(
        _OPERATION.c.cluster == cluster
    )
    if open_only:
        statement = statement.where(_OPERATION.c.ended_at.is_(None))
    if node is not None:
        held = select(_NODE.c.operation_id).where(_NODE.c.cluster == cluster, _NODE.c.node == node)
        statement = statement.where(_OPERATION.c.id.in_(held))
    statement = statement.order_by(_OPERATION.c.created_at.desc(), _OPERATION.c.id)
    with read(engine) as connection:
        if after is not None:
            named = connection.execute(
                select(_OPERATION.c.created_at).where(
                    _OPERATION.c.cluster == cluster, _OPERATION.c.id == after
                )
            ).first()
            last = known_cursor(named, after)
            statement = statement.where(
                or_(
                    _OPERATION.c.created_at < last[0],
                    and_(_OPERATION.c.created_at == last[0], _OPERATION.c.id > after),
                )
            )
        return [OperationRecord(*row) for row in connection.execute(limited(statement, limit))]


def operation(engine: Engine, cluster: str, operation_id: str) -> OperationRecord | None:
    """One operation with its steps in order, None when it is not known."""
    with read(engine) as connection:
        row = connection.execute(
            select(*columns_of(Operation, OperationRecord)).where(
                _OPERATION.c.cluster == cluster, _OPERATION.c.id == operation_id
            )
        ).first()
        if row is None:
            return None
        steps = connection.execute(
            select(*columns_of(OperationStep, StepRecord))
            .where(_STEP.c.operation_id == operation_id)
            .order_by(_STEP.c.id)
        ).all()
    return msgspec.structs.replace(
        OperationRecord(*row), steps=[StepRecord(*step) for step in steps]
    )
