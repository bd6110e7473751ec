"""Migrations make exactly the tables, on both databases, and say in one sentence what is wrong."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

import app.store.migrations
from app.errors import StoreError
from app.store.engine import check_schema, migrate, open_store, read, write
from app.store.migrations import HEAD
from app.store.tables import metadata

AUDIT = (
    "INSERT INTO audit_entry (cluster, at, author, actor, action, target, target_uid, dry_run, outcome, message) "
    "VALUES ('c', '2026-01-01 00:00:00.000000', 'ann', 'page', 'request', 'n', '', false, 'done', '')"
)
EVENT = (
    "INSERT INTO health_event (cluster, at, node, kind, code, severity, message, count) "
    "VALUES ('c', '2026-01-01 00:00:00.000000', 'n', 'xid', 'xid-79', 'fatal', '', 1)"
)


def test_migration_makes_the_tables_the_code_names(engine: Engine) -> None:
    with read(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_head_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(app.store.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_migrating_twice_changes_nothing(store_url: str) -> None:
    migrate(store_url)
    check_schema(open_store(store_url))


def test_store_without_tables_is_told_to_migrate(empty_store_url: str) -> None:
    migrated = open_store(empty_store_url)
    with pytest.raises(StoreError, match="run `pitwall migrate`"):
        check_schema(migrated)
    migrate(empty_store_url)
    check_schema(migrated)


def test_store_of_a_newer_release_is_refused(engine: Engine, store_url: str) -> None:
    with write(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer release"):
        check_schema(engine)
    with pytest.raises(StoreError, match="newer release"):
        migrate(store_url)


def test_reading_a_store_without_tables_names_the_remedy(empty_store_url: str) -> None:
    with (
        pytest.raises(StoreError, match="run `pitwall migrate`"),
        read(open_store(empty_store_url)) as connection,
    ):
        connection.execute(text("SELECT * FROM node"))


@pytest.mark.parametrize(("table", "row"), [("audit_entry", AUDIT), ("health_event", EVENT)])
@pytest.mark.parametrize("change", ["UPDATE {} SET message = 'x'", "DELETE FROM {}"])
def test_append_only_tables_refuse_change(
    engine: Engine, table: str, row: str, change: str
) -> None:
    with write(engine) as connection:
        connection.execute(text(row))
    with pytest.raises(IntegrityError, match="append-only"), write(engine) as connection:
        connection.execute(text(change.format(table)))
    with read(engine) as connection:
        assert connection.execute(text(f"SELECT message FROM {table}")).all() == [("",)]


def test_append_only_row_is_not_replaced_in_sqlite(sqlite_engine: Engine) -> None:
    with write(sqlite_engine) as connection:
        connection.execute(text(AUDIT))
    with pytest.raises(IntegrityError, match="append-only"), write(sqlite_engine) as connection:
        connection.execute(
            text("INSERT OR REPLACE INTO audit_entry SELECT * FROM audit_entry WHERE id = 1")
        )


@pytest.mark.postgresql
def test_append_only_table_is_not_truncated(postgresql) -> None:  # type: ignore[no-untyped-def]
    opened = open_store(postgresql.database())
    with pytest.raises(IntegrityError, match="append-only"), write(opened) as connection:
        connection.execute(text("TRUNCATE audit_entry"))


def test_writers_take_turns_and_readers_go_on(engine: Engine) -> None:
    with write(engine) as writer:
        writer.execute(text(AUDIT))
        with read(engine) as reader:
            assert reader.execute(text("SELECT count(*) FROM audit_entry")).scalar_one() == 0


def write_then_fail(engine: Engine) -> None:
    with write(engine) as connection:
        connection.execute(text(AUDIT))
        raise ZeroDivisionError


def test_failed_block_stores_nothing(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        write_then_fail(engine)
    with read(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_entry")).scalar_one() == 0


def test_locked_store_says_so_in_one_sentence(
    engine: Engine, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.engine.BUSY_TIMEOUT_SECONDS", 1)
    impatient = open_store(store_url)
    with write(engine), pytest.raises(StoreError, match="held it for too long"), write(impatient):
        pass
    with write(impatient) as connection:
        connection.execute(text(AUDIT))


def write_much(engine: Engine) -> None:
    long = AUDIT.replace("'done', ''", "'done', :message")
    with write(engine) as connection:
        for _ in range(50):
            connection.execute(text(long), {"message": "x" * 10_000})


def test_full_disk_says_so_in_one_sentence(sqlite_engine: Engine) -> None:
    # SQLite never cuts what is there: the limit becomes the present size, and there is room for no more.
    with sqlite_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="no room left"):
        write_much(sqlite_engine)
    with read(sqlite_engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_entry")).scalar_one() == 0


def test_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, no database " * 100)
    with pytest.raises(StoreError, match="not a SQLite store"):
        check_schema(open_store(f"sqlite:///{path}"))


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder exists"):
        migrate(f"sqlite:///{tmp_path}/nowhere/pitwall.db")


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://"])
def test_address_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"sqlite:///PATH"):
        open_store(url)


def test_unreachable_server_hides_the_password() -> None:
    engine = open_store("postgresql://pitwall:secret@127.0.0.1:1/pitwall")
    with pytest.raises(StoreError, match="does not answer") as caught, read(engine):
        pass
    assert "secret" not in str(caught.value)
