"""Reads of what automatic mode did, would have done, and left alone."""

from sqlalchemy import Engine, select

from app.store.engine import read
from app.store.reads.rows import columns_of, limited, table_of
from app.store.records import AutomaticRecord
from app.store.tables import AutomaticAction, Request

_ACTION, _REQUEST = table_of(AutomaticAction), table_of(Request)

DONE_WITH = ("accepted", "would_act", "ended")


def automatic_actions(
    engine: Engine, cluster: str, *, open_only: bool = False, limit: int = 100
) -> list[AutomaticRecord]:
    """Its rows, what changed last first. open_only: without those that are done with."""
    statement = select(*columns_of(AutomaticAction, AutomaticRecord)).where(
        _ACTION.c.cluster == cluster
    )
    if open_only:
        statement = statement.where(_ACTION.c.state.not_in(DONE_WITH))
    statement = statement.order_by(_ACTION.c.updated_at.desc(), _ACTION.c.rule, _ACTION.c.episode)
    with read(engine) as connection:
        return [AutomaticRecord(*row) for row in connection.execute(limited(statement, limit))]
