"""Runs the migrations on the connection that app.store.engine.migrate gives, in its transaction."""

from alembic import context
from sqlalchemy import Connection

from app.store.tables import metadata


def run(connection: Connection) -> None:
    """Run what is wanted. SQLite alters a table by copying it, hence render_as_batch."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
    )
    context.run_migrations()


run(context.config.attributes["connection"])
