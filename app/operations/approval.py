"""A second person's yes to what stops many GPUs. Inside the caller's transaction.

A request above the site's size is not accepted but waits, with the plan that its author saw; nothing is
held or reserved meanwhile. Another person approves that plan by its hash. It is judged anew then: when
the world has moved, the approval is void and so is the request, and both say why. Without a yes it
expires.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update

from app.errors import RequestRefused
from app.operations import ledger
from app.operations.plan_hash import void_text
from app.settings import Settings
from app.store.reads.rows import columns_of, table_of
from app.store.records import RequestRecord
from app.store.tables import Request

AWAITING = "awaiting_approval"

_request = table_of(Request)


class ApprovalVoid(RequestRefused):
    """The plan that was approved is not what would be done any more; request_id names what waited for it."""

    def __init__(self, message: str, *, request_id: str) -> None:
        super().__init__(message, code="plan_changed")
        self.request_id = request_id


def is_needed(plan: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a second person must approve: it stops more GPUs than the site lets one person stop."""
    return settings.approval_gpus is not None and plan["gpus_stopped"] > settings.approval_gpus


def ask_for_approval(
    connection: Connection,
    request: RequestRecord,
    plan: Mapping[str, Any],
    *,
    settings: Settings,
    now: datetime,
) -> str:
    """Lets a request wait for a second person; gives the sentence that says so."""
    expires_at = now + timedelta(seconds=settings.approval_valid_seconds)
    said = (
        f"It stops {plan['gpus_stopped']} GPUs, more than {settings.approval_gpus}: a second person must "
        f"approve plan {plan['hash']} by {expires_at:%Y-%m-%d %H:%M:%S} UTC (`pitwall approve {request.id}`)."
    )
    approval = {
        "plan_hash": plan["hash"],
        "gpus": plan["gpus_stopped"],
        "asked_by": request.author,
        "expires_at": expires_at.isoformat(),
        "message": said,
    }
    connection.execute(
        update(_request)
        .where(_request.c.id == request.id, _request.c.state == "pending")
        .values(state=AWAITING, answer={"approval": approval, "plan": dict(plan)}, answered_at=None)
    )
    return said


def read_awaiting(
    connection: Connection,
    cluster: str,
    request_id: str,
    *,
    by: str,
    plan_hash: str | None,
    now: datetime,
) -> RequestRecord:
    """The request that a person may approve. Raises RequestRefused when they may not, or it waits no more."""
    row = connection.execute(
        select(*columns_of(Request, RequestRecord))
        .where(_request.c.cluster == cluster, _request.c.id == request_id)
        .with_for_update()
    ).first()
    if row is None:
        raise RequestRefused(
            f"There is no request {request_id or '(none named)'}: see `pitwall approve`.",
            code="not_found",
        )
    found = RequestRecord(*row)
    if found.state != AWAITING:
        raise RequestRefused(
            f"Request {found.id} waits for no approval: it is {found.state}.", code="conflict"
        )
    if found.author == by:
        raise RequestRefused(
            f"{by} asked for this: somebody else must approve it.", code="forbidden"
        )
    approval = found.answer["approval"]
    if datetime.fromisoformat(approval["expires_at"]) < now:
        raise RequestRefused(_expired(approval), code="approval_expired")
    if plan_hash != approval["plan_hash"]:
        raise RequestRefused(
            f"It waits for approval of plan {approval['plan_hash']}, not {plan_hash or '(none named)'}: read "
            "that one.",
            code="plan_changed",
        )
    return found


def hold_to_plan(waiting: RequestRecord, plan: Mapping[str, Any]) -> None:
    """Raises ApprovalVoid when what would be done now is not what waited for approval."""
    shown = waiting.answer["plan"]
    if plan["hash"] == shown["hash"]:
        return
    raise ApprovalVoid(
        void_text(shown, plan) + " Ask for it anew.",
        request_id=waiting.id,
    )


def expire(connection: Connection, cluster: str, *, now: datetime) -> int:
    """Refuses the requests that nobody approved in time; gives how many."""
    rows = connection.execute(
        select(*columns_of(Request, RequestRecord)).where(
            _request.c.cluster == cluster, _request.c.state == AWAITING
        )
    ).all()
    late = [
        record
        for row in rows
        if datetime.fromisoformat((record := RequestRecord(*row)).answer["approval"]["expires_at"])
        < now
    ]
    for record in late:
        said = _expired(record.answer["approval"])
        connection.execute(
            update(_request)
            .where(_request.c.id == record.id, _request.c.state == AWAITING)
            .values(state="refused", answered_at=now, refusal=said, refusal_code="approval_expired")
        )
        ledger.audit(
            connection,
            cluster,
            at=now,
            author=record.author,
            action=record.kind,
            target=f"request {record.id}",
            target_uid=record.id,
            outcome="refused",
            message=said,
        )
    return len(late)


def _expired(approval: Mapping[str, Any]) -> str:
    return (
        f"Nobody approved plan {approval['plan_hash']} until {approval['expires_at'][:19].replace('T', ' ')} "
        "UTC: look at a new plan and ask again."
    )


def count_awaiting(connection: Connection, cluster: str) -> int:
    """How many requests wait for a second person."""
    return int(
        connection.execute(
            select(func.count()).where(_request.c.cluster == cluster, _request.c.state == AWAITING)
        ).scalar_one()
    )


def void(connection: Connection, cluster: str, why: ApprovalVoid, *, now: datetime) -> None:
    """Refuses the request whose approval is void, with the reason."""
    row = connection.execute(
        update(_request)
        .where(
            _request.c.cluster == cluster,
            _request.c.id == why.request_id,
            _request.c.state == AWAITING,
        )
        .values(state="refused", answered_at=now, refusal=str(why), refusal_code=why.code)
        .returning(_request.c.author, _request.c.kind)
    ).first()
    if row is not None:
        ledger.audit(
            connection,
            cluster,
            at=now,
            author=row.author,
            action=row.kind,
            target=f"request {why.request_id}",
            target_uid=why.request_id,
            outcome="refused",
            message=str(why),
        )
