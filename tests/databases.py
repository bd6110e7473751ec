"""Stores for tests: a migrated SQLite file, and a PostgreSQL server of the system's own binaries.

The server starts once a session in a temporary folder, listens on a unix socket only, and gives
each test a database copied from a migrated template.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from app.store.engine import migrate


class PostgresqlMissing(Exception):
    """Why no PostgreSQL server can be started here."""


def binaries() -> Path:
    """The folder of the newest PostgreSQL of the system. Raises PostgresqlMissing."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    found = [folder for folder in folders if (folder / "initdb").exists()]
    if found:
        return found[-1]
    program = shutil.which("initdb")
    if program:
        return Path(program).parent
    raise PostgresqlMissing("no PostgreSQL server is installed (apt-get install postgresql)")


class Postgresql:
    """A running server; `database()` gives the address of a fresh migrated database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._template_made = False

    def url(self, database: str) -> str:
        """SQLAlchemy address of a database of this server."""
        return f"postgresql+psycopg://pitwall@/{database}?host={self.folder}"

    def empty_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"t{uuid.uuid4().hex[:16]}"
        self._run(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def database(self) -> str:
        """Make a database with the store's tables and return its address."""
        if not self._template_made:
            self._run("CREATE DATABASE pitwall_template")
            migrate(self.url("pitwall_template"))
            self._template_made = True
        name = f"t{uuid.uuid4().hex[:16]}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE pitwall_template')
        return self.url(name)

    def _run(self, statement: str) -> None:
        address = f"host={self.folder} user=pitwall dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def postgresql_server(*, durable: bool = False) -> Iterator[Postgresql]:
    """Run a server for as long as the block lasts; `durable`: as one in use, synced and with memory.

    Raises PostgresqlMissing.
    """
    programs = binaries()
    root = Path(tempfile.mkdtemp(prefix="pitwall-pg-"))
    prefix: list[str] = []
    if os.geteuid() == 0:
        # The server refuses to run as root.
        try:
            account = pwd.getpwnam("postgres")
        except KeyError as error:
            shutil.rmtree(root)
            raise PostgresqlMissing("there is no user postgres to run the server as") from error
        os.chown(root, account.pw_uid, account.pw_gid)
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    root.chmod(0o755)
    data = root / "data"
    settings = f"-c listen_addresses= -c unix_socket_directories={root} -c max_connections=60"
    if durable:
        # The default 128 MB would not hold one table of the largest fleet.
        settings += " -c shared_buffers=1GB -c max_wal_size=8GB"
    else:
        settings += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    started = False
    try:
        _call([*prefix, programs / "initdb", "-D", data, "-U", "pitwall", "-A", "trust", "-N",
               "-E", "UTF8", "--no-locale"])  # fmt: skip
        _call([*prefix, programs / "pg_ctl", "-D", data, "-o", settings, "-w", "-t", "30",
               "-l", root / "log", "start"])  # fmt: skip
        started = True
        yield Postgresql(root)
    finally:
        if started:
            _call([*prefix, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])
        shutil.rmtree(root, ignore_errors=True)


def _call(command: list[object]) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", check=False)
    if done.returncode != 0:
        raise PostgresqlMissing(
            f"{words[-1] if len(words) < 3 else ' '.join(words[:6])}: {done.stderr.strip()}"
        )
