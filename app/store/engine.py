"""Opening the SQL store, its reading and writing transactions, and its migrations.

One writer at a time on both databases: BEGIN IMMEDIATE in SQLite, an advisory lock in PostgreSQL.
So a writer may read what it decides on and be sure of it until it commits.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from app.errors import StoreError
from app.store.failures import DATABASE_ERRORS, explain, is_integrity_error
from app.store.migrations import HEAD

BUSY_TIMEOUT_SECONDS = 10.0
"""How long a writer waits for another; a tick of the largest fleet takes about one second (facts/store.md)."""

STATEMENT_TIMEOUT_SECONDS = 120
CONNECT_TIMEOUT_SECONDS = 5
WORK_MEMORY_MEGABYTES = 64
WRITER_LOCK = 0x70697477616C6C
"""Key of PostgreSQL's advisory lock that makes writers take turns ("pitwall" in ASCII)."""

_WRITING = "pitwall_writing"


def open_store(url: str) -> Engine:
    """Open the store at a SQLAlchemy address; connects only when first used.

    `sqlite:///path` or `postgresql://user@host/database`. Raises StoreError for any other address.
    """
    address = _address(url)
    if address.get_backend_name() == "sqlite":
        return _open_sqlite(address)
    return create_engine(
        address,
        pool_size=5,
        max_overflow=10,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "pitwall",
            "options": (
                f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_SECONDS}s "
                f"-c lock_timeout={BUSY_TIMEOUT_SECONDS:.0f}s "
                f"-c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_SECONDS}s "
                # A tick joins 350,000 staged rows with those there: in memory, and without compiling it first.
                f"-c work_mem={WORK_MEMORY_MEGABYTES}MB -c jit=off"
            ),
        },
    )


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A short reading transaction; sees one state of the store.

    Keep it short: an open reader lets SQLite's WAL grow without bound (facts/store.md). Raises StoreError.
    """
    with _transaction(engine, writing=False) as connection:
        yield connection


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """The store's only writing transaction, committed at the end of the block.

    Waits up to 10 s for its turn. Raises StoreError when the store is full, locked or old, nothing being
    stored then. An IntegrityError of a constraint passes as it is, for the caller to judge.
    """
    with _transaction(engine, writing=True) as connection:
        yield connection


def migrate(url: str) -> None:
    """Bring the store to this release's tables, making it if it is not there. Raises StoreError."""
    # Alembic is slow to import and only this needs it.
    from alembic import command
    from alembic.util import CommandError

    engine = open_store(url)
    try:
        with write(engine) as connection:
            found = _revision(connection)
            if found is not None and found not in _known_revisions():
                raise StoreError(_too_new(engine, found))
            try:
                command.upgrade(_alembic_config(connection), "head")
            except CommandError as error:
                raise StoreError(
                    f"The store {name_of(engine)} could not be migrated: {error}."
                ) from error
    finally:
        engine.dispose()


def check_schema(engine: Engine) -> None:
    """Raise StoreError, in one sentence, unless the store has the tables of this release."""
    address = engine.url
    if engine.dialect.name == "sqlite" and not Path(str(address.database)).exists():
        raise StoreError(f"There is no store {name_of(engine)}: run `pitwall migrate`.")
    with read(engine) as connection:
        found = _revision(connection)
    if found == HEAD:
        return
    if found is None:
        raise StoreError(f"The store {name_of(engine)} has no tables yet: run `pitwall migrate`.")
    if found in _known_revisions():
        raise StoreError(
            f"The store {name_of(engine)} is of an older release (revision {found}, this one has {HEAD}): "
            "run `pitwall migrate`."
        )
    raise StoreError(_too_new(engine, found))


def name_of(engine: Engine) -> str:
    """The store's address for people, its password hidden."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.render_as_string(hide_password=True)


def is_sqlite(connection: Connection) -> bool:
    """Whether this is SQLite, for the bulk paths that differ by database."""
    return connection.dialect.name == "sqlite"


def _address(url: str) -> URL:
    try:
        address = make_url(url)
        backend = address.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(
            "PITWALL_STORE_URL is no address of a store: give sqlite:///PATH or postgresql://USER@HOST/DATABASE."
        ) from error
    if backend == "sqlite":
        if not address.database or address.database == ":memory:":
            raise StoreError(
                "A store in memory can't be shared by several processes: give sqlite:///PATH."
            )
        return address.set(drivername="sqlite+pysqlite")
    if backend == "postgresql":
        return address.set(drivername="postgresql+psycopg")
    raise StoreError(
        f"A store in {backend} is not known: give sqlite:///PATH or postgresql://USER@HOST/DATABASE."
    )


def _open_sqlite(address: URL) -> Engine:
    engine = create_engine(
        address,
        pool_size=5,
        max_overflow=20,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # Transactions are begun by hand below: the driver's own begin only before the first write.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000:.0f}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -65536")
        # What a long reader let the WAL grow to is given back at the next checkpoint.
        cursor.execute("PRAGMA journal_size_limit = 67108864")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


@contextmanager
def _transaction(engine: Engine, *, writing: bool) -> Iterator[Connection]:
    try:
        with engine.connect() as plain:
            connection = plain.execution_options(**{_WRITING: writing})
            with connection.begin():
                if writing and engine.dialect.name == "postgresql":
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK}
                    )
                elif engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(
                        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
                    )
                yield connection
    except DATABASE_ERRORS as error:
        if is_integrity_error(error):
            raise
        raise explain(error, store=name_of(engine)) from error


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def _alembic_config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _known_revisions() -> set[str]:
    folder = Path(__file__).parent / "migrations" / "versions"
    return {path.name.split("_", 1)[0] for path in folder.glob("[0-9]*.py")}


def _too_new(engine: Engine, found: str) -> str:
    return (
        f"The store {name_of(engine)} is of a newer release (revision {found}, this one has {HEAD}): "
        "start that release, or give another store."
    )
