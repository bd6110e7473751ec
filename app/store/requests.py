"""What people ask for: written here by the page and /v1, answered by the worker.

A request with an idempotency key is one row however often it is sent, and is audited with it.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from app.errors import RequestRefused
from app.store.engine import read, write
from app.store.reads.rows import columns_of, limited, table_of
from app.store.records import RequestRecord
from app.store.tables import AuditEntry, Request

_REQUEST = table_of(Request)
_AUDIT = table_of(AuditEntry)

KINDS = (
    *("preview", "drain", "reschedule", "uncordon", "cancel", "choose", "repair", "return"),
    *("diagnose", "repair_note"),
    *("silence", "maintenance", "unsilence", "send_again", "drop_delivery"),
    *("test_receiver", "receiver_add", "receiver_disable"),
    *("undo", "approve", "pause", "unpause", "reset_limit"),
    *("acknowledge", "own", "note", "resolve", "reopen"),  # of an incident
)
SUBJECTS = (
    "value",
    "silence_id",
    "delivery_id",
    "receiver",
    "job",
    "operation_id",
    "request_id",
    "incident",
    "incident_id",
    "limit",
    "node",
)
MAX_REASON_LENGTH = 2000
MAX_KEY_LENGTH = 200


def submit(
    engine: Engine,
    cluster: str,
    *,
    kind: str,
    parameters: dict[str, Any],
    author: str,
    reason: str,
    idempotency_key: str,
    now: datetime,
    actor: str = "page",
    author_groups: Sequence[str] | None = None,
    author_role: str | None = None,
) -> RequestRecord:
    """Write a request for the worker; the same key gives the row that is already there.

    `actor` is what writes it (page, ingest). author_groups: of the token that proved the author, None where
    nothing did. author_role: the role they have at the page, None where nobody has one (app.roles). An empty key makes a new request each time. Raises
    RequestRefused: invalid for an unknown kind or too long a text, conflict for a key that named
    another request. Raises StoreError.
    """
    with write(engine) as connection:
        return submit_within(
            connection,
            cluster,
            kind=kind,
            parameters=parameters,
            author=author,
            reason=reason,
            idempotency_key=idempotency_key,
            now=now,
            actor=actor,
            author_groups=author_groups,
            author_role=author_role,
        )


def submit_within(
    connection: Connection,
    cluster: str,
    *,
    kind: str,
    parameters: dict[str, Any],
    author: str,
    reason: str,
    idempotency_key: str,
    now: datetime,
    actor: str,
    author_groups: Sequence[str] | None = None,
    author_role: str | None = None,
) -> RequestRecord:
    """As submit, inside the caller's transaction."""
    _check(kind=kind, author=author, reason=reason, key=idempotency_key)
    key = idempotency_key or uuid.uuid4().hex
    known = _by_key(connection, cluster, key)
    if known is not None:
        if (known.kind, known.parameters, known.author) != (kind, parameters, author):
            raise RequestRefused(
                f"The idempotency key {key} was used for another request: send a new key.",
                code="conflict",
            )
        return known
    request_id = uuid.uuid4().hex
    connection.execute(
        insert(_REQUEST).values(
            id=request_id,
            cluster=cluster,
            idempotency_key=key,
            kind=kind,
            parameters=parameters,
            author=author,
            author_groups=None if author_groups is None else list(author_groups),
            author_role=author_role,
            reason=reason,
            created_at=now,
            state="pending",
            answer={},
            refusal="",
            refusal_code="",
        )
    )
    connection.execute(
        insert(_AUDIT).values(
            cluster=cluster,
            at=now,
            author=author,
            actor=actor,
            action="request",
            target=_target(kind, parameters),
            target_uid=request_id,
            dry_run=kind == "preview",
            outcome="done",
            message=reason,
        )
    )
    written = _by_key(connection, cluster, key)
    assert written is not None
    return written


def request(engine: Engine, cluster: str, request_id: str) -> RequestRecord | None:
    """One request with its answer so far, None when it is not known."""
    with read(engine) as connection:
        row = connection.execute(
            select(*columns_of(Request, RequestRecord)).where(
                _REQUEST.c.cluster == cluster, _REQUEST.c.id == request_id
            )
        ).first()
    return None if row is None else RequestRecord(*row)


def pending(engine: Engine, cluster: str, *, limit: int = 100) -> list[RequestRecord]:
    """The requests that wait for the worker, oldest first."""
    statement = (
        select(*columns_of(Request, RequestRecord))
        .where(_REQUEST.c.cluster == cluster, _REQUEST.c.state == "pending")
        .order_by(_REQUEST.c.created_at, _REQUEST.c.id)
    )
    with read(engine) as connection:
        return [RequestRecord(*row) for row in connection.execute(limited(statement, limit))]


def _by_key(connection: Connection, cluster: str, key: str) -> RequestRecord | None:
    row = connection.execute(
        select(*columns_of(Request, RequestRecord)).where(
            _REQUEST.c.cluster == cluster, _REQUEST.c.idempotency_key == key
        )
    ).first()
    return None if row is None else RequestRecord(*row)


def _check(*, kind: str, author: str, reason: str, key: str) -> None:
    if kind not in KINDS:
        raise RequestRefused(f"There is no request of kind {kind}: use one of {', '.join(KINDS)}.")
    if not author:
        raise RequestRefused("A request must have an author.", code="forbidden")
    if len(reason) > MAX_REASON_LENGTH or len(key) > MAX_KEY_LENGTH:
        raise RequestRefused(
            f"A reason has at most {MAX_REASON_LENGTH} characters, a key at most {MAX_KEY_LENGTH}."
        )
    if "\x00" in reason + key + author:
        raise RequestRefused("A request holds a NUL character: leave it out.")


def _target(kind: str, parameters: dict[str, Any]) -> str:
    """The request's subject in words, for the audit."""
    nodes = parameters.get("nodes")
    if isinstance(nodes, list):
        subject = ", ".join(str(node) for node in nodes[:20])
    else:
        subject = str(next((parameters[key] for key in SUBJECTS if parameters.get(key)), ""))
    action = parameters.get("action")
    return f"{kind}{f' of {action}' if action else ''} {subject}".strip()[:500]
