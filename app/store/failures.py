"""What the database said, in one sentence that tells the operator what to do next."""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import StoreError

_FULL = "there is no room left for it: free space on the store's disk, what was being written is not stored"
_LOCKED = (
    "another program has held it for too long: look for a stuck process that has it open, "
    "what was being written is not stored"
)
_OLD = "its tables are not those of this release: run `pitwall migrate`"
_UNREACHABLE = (
    "the server does not answer: look whether PostgreSQL runs and PITWALL_STORE_URL is right"
)
_READONLY = (
    "it can't be written by this user: look at the owner and rights of the file and its folder"
)
_MISSING = "it can't be opened: look whether the folder exists and this user may write to it"
_NOT_A_STORE = "it is not a SQLite store or it is damaged: give another path or restore a backup"

# PostgreSQL's SQLSTATE, https://www.postgresql.org/docs/15/errcodes-appendix.html
_BY_SQLSTATE = {
    "53100": _FULL,
    "55P03": _LOCKED,
    "57014": _LOCKED,
    "40P01": _LOCKED,
    "25P03": _LOCKED,
    "42P01": _OLD,
    "42703": _OLD,
    "25006": "it takes no writes: it is a read-only replica, give the primary's address",
    "53300": "it takes no more connections: raise max_connections or run fewer processes",
    "3D000": "there is no such database on the server: create it",
    "28P01": "the server refuses the user or password: correct PITWALL_STORE_URL",
    "28000": "the server refuses the user: correct PITWALL_STORE_URL",
    "57P01": "the server is shutting down: it is tried again",
    "57P03": "the server is starting: it is tried again",
}

# SQLite's primary result codes, https://www.sqlite.org/rescode.html
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READONLY,
    sqlite3.SQLITE_PERM: _READONLY,
    sqlite3.SQLITE_CANTOPEN: _MISSING,
    sqlite3.SQLITE_NOTADB: _NOT_A_STORE,
    sqlite3.SQLITE_CORRUPT: _NOT_A_STORE,
    sqlite3.SQLITE_IOERR: "its disk fails to read or write: look at the disk and the kernel log",
}


class StoreUnavailable(StoreError):
    """The store can't answer now (full, locked, unreachable, old): the same call may succeed later."""


class StoreRefused(StoreError):
    """A value does not fit what the store can hold: the same call fails again."""


def is_integrity_error(error: BaseException) -> bool:
    """Whether a constraint refused the write: that is for the caller to judge."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, sqlite3.IntegrityError | psycopg.IntegrityError)


def explain(error: Exception, *, store: str) -> StoreError:
    """Turn a database's error into a StoreError of one sentence. `store` names it without its password."""
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailable(f"The store {store}: {_LOCKED}.")
    reason: str | None = None
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        reason = _BY_SQLITE_CODE.get(code & 0xFF) if code is not None else None
        old = ("no such table", "no such column", "has no column named")
        if reason is None and any(words in str(cause) for words in old):
            reason = _OLD
    elif isinstance(cause, psycopg.Error):
        reason = _BY_SQLSTATE.get(cause.sqlstate or "")
        if reason is None and isinstance(cause, psycopg.OperationalError):
            reason = _UNREACHABLE
    if reason is not None:
        return StoreUnavailable(f"The store {store}: {reason}.")
    first_line = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    kind = StoreRefused if isinstance(cause, sqlite3.DataError | psycopg.DataError) else StoreError
    return kind(f"The store {store} refused what was asked: {first_line}.")


DATABASE_ERRORS = (SQLAlchemyError, sqlite3.Error, psycopg.Error)
"""What a statement can raise, whether through SQLAlchemy or on the driver's own connection."""
