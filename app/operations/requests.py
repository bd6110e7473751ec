"""The worker's side of requests: previews are answered, wishes accepted or refused, each in one transaction."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import IntegrityError

from app import roles
from app.alerts.config import DEFAULT, AlertConfig
from app.errors import RequestRefused
from app.operations import admission, alert_requests, approval, incident_requests, ledger, trips
from app.operations.access import Access
from app.operations.case import Case, Outcome
from app.operations.diagnose_requests import diagnose
from app.operations.lease import LeaseKeeper, check
from app.operations.repair_requests import add_words, give_back, repair
from app.operations.request_rights import may_ask, refuse_unless
from app.operations.steering import cancel, choose, standing_word, uncordon, undo
from app.operations.survey import fresh
from app.operations.wish_requests import approve, preview, take_wish
from app.operations.wishes import read_nodes, read_parameters
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.records import RequestRecord
from app.store.requests import pending
from app.store.tables import Request
from k8s.view import ClusterView

log = structlog.get_logger()

REQUESTS_A_TICK = 50
UNHEARD_SECONDS = 30.0
"""A request waits so long for Kubernetes to be heard; then it is refused rather than left hanging."""

EXPIRY_PERIOD = timedelta(seconds=1)
"""How often requests that wait for approval are looked through."""

WORDS = ("cancel", "choose", "pause", "unpause", "reset_limit", "repair_note")
"""Kinds that are words to Pitwall itself and need no view of Kubernetes."""

_request = table_of(Request)


class RequestDesk:
    """Answers what people asked for, on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings,
        view: Callable[[], ClusterView],
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
        access: Access | None = None,
        diagnostic: dict[str, Any] | None = None,
        alerts: AlertConfig = DEFAULT,
    ) -> None:
        """access: asks whether an author may have that done; none asks about nobody. diagnostic: the site's Job."""
        self._diagnostic = diagnostic
        self._alerts = alerts
        self._access = access
        self._engine = engine
        self._cluster = settings.cluster
        self._settings = settings
        self._view = view
        self._lease = lease
        self._clock = clock
        self._looked_at: datetime | None = None

    def tick(self) -> int:
        """Answers the requests that wait, oldest first; gives how many were answered.

        Does nothing while this worker does not hold the lease. Raises StoreError, LeaseLost.
        """
        if self._lease.held() is None:
            return 0
        self._expire_approvals()
        waiting = pending(self._engine, self._cluster, limit=REQUESTS_A_TICK)
        answered = 0
        for request in waiting:
            answered += self._answer(request)
        return answered

    def _expire_approvals(self) -> None:
        now = self._clock()
        if self._looked_at is not None and now - self._looked_at < EXPIRY_PERIOD:
            return
        self._looked_at = now
        with read(self._engine) as connection:
            waiting = approval.count_awaiting(connection, self._cluster)
        if waiting:
            with write(self._engine) as connection:
                check(connection, self._cluster, held=self._lease.require(), now=now)
                approval.expire(connection, self._cluster, now=now)

    def _answer(self, request: RequestRecord) -> bool:
        now = self._clock()
        view = fresh(self._view(), now)
        # A cancel or a choice needs no view: it is a word to the reconciler. Nor does one on an incident.
        needs_view = request.kind not in (*WORDS, *incident_requests.KINDS, *alert_requests.KINDS)
        if needs_view and not view.synced:
            if (now - request.created_at).total_seconds() < UNHEARD_SECONDS:
                return False
            refused = RequestRefused(
                "Kubernetes is not heard, so nothing can be judged: see `pitwall status`.",
                code="unavailable",
            )
            self._refuse(request, refused, now)
            return True
        try:
            roles.refuse_unless(request.author, request.author_role, request.kind)
            if self._access is not None:  # before the transaction: no call is made inside one
                verdict = may_ask(request, access=self._access, view=view, now=now)
                waited_seconds = (now - request.created_at).total_seconds()
                if verdict.allowed is None and waited_seconds < UNHEARD_SECONDS:
                    return False
                refuse_unless(verdict)
            with write(self._engine) as connection:
                check(connection, self._cluster, held=self._lease.require(), now=now)
                outcome = self._handle(connection, request, view, now)
                if outcome.state != approval.AWAITING:
                    _store(
                        connection,
                        request,
                        state=outcome.state,
                        answer=outcome.answer,
                        operation_id=outcome.operation_id,
                        now=now,
                    )
                if request.kind != "preview":
                    _audit(
                        connection,
                        self._cluster,
                        request,
                        outcome.operation_id,
                        "done",
                        outcome.message,
                        now,
                    )
        except RequestRefused as refused:
            self._refuse(request, refused, now)
        except IntegrityError:
            # Another worker's operation took the node between our look and our write.
            taken = RequestRefused(
                "A node has just been taken by another operation.", code="conflict"
            )
            self._refuse(request, taken, now)
        return True

    def _handle(
        self, connection: Connection, request: RequestRecord, view: ClusterView, now: datetime
    ) -> Outcome:
        if request.kind in incident_requests.KINDS:
            answer = incident_requests.answer(connection, self._cluster, request, now)
            return Outcome(answer=answer)
        if request.kind in alert_requests.KINDS:
            answer = alert_requests.answer(
                connection,
                self._cluster,
                request,
                config=self._alerts,
                settings=self._settings,
                now=now,
            )
            return Outcome(answer=answer)
        case = Case(
            connection,
            self._cluster,
            request,
            read_parameters(request.parameters),
            view=view,
            settings=self._settings,
            now=now,
        )
        match request.kind:
            case "preview":
                return Outcome(answer=preview(case), state="answered")
            case "drain" | "reschedule":
                return take_wish(case)
            case "approve":
                return approve(case)
            case "uncordon":
                nodes = read_nodes(case.parameters, view=view)
                return Outcome(uncordon(case, nodes))
            case "undo":
                return Outcome(undo(case))
            case "repair":
                repair(
                    connection,
                    self._cluster,
                    case.parameters,
                    request=request,
                    view=view,
                    now=now,
                    calls=self._settings.repair_webhook_url_file is not None,
                )
                return Outcome()
            case "repair_note":
                add_words(connection, self._cluster, case.parameters, request=request, now=now)
                return Outcome()
            case "diagnose":
                return Outcome(answer=diagnose(case, self._diagnostic))
            case "return":
                opened, message = give_back(
                    connection,
                    self._cluster,
                    case.parameters,
                    view=view,
                    uncordon=lambda nodes: uncordon(case, nodes),
                    request=request,
                    settings=self._settings,
                    now=now,
                )
                return Outcome(opened, message=message, answer={"message": message})
            case "cancel":
                return Outcome(cancel(case))
            case "choose":
                return Outcome(choose(case))
            case "pause" | "unpause" | "reset_limit":
                return Outcome(message=standing_word(case))
        raise RequestRefused(f"There is no request of kind {request.kind}.")

    def _refuse(self, request: RequestRecord, refused: RequestRefused, now: datetime) -> None:
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            _store(connection, request, state="refused", refusal=refused, now=now)
            if request.kind != "preview":
                _audit(connection, self._cluster, request, None, "refused", str(refused), now)
            if isinstance(refused, approval.ApprovalVoid):
                approval.void(connection, self._cluster, refused, now=now)
            if isinstance(refused, admission.LimitRefused) and request.parameters.get("automatic"):
                for name in refused.names:
                    trips.trip(connection, self._cluster, name, message=str(refused), now=now)
        log.info("request refused", request_id=request.id, kind=request.kind, reason=str(refused))


def _store(
    connection: Connection,
    request: RequestRecord,
    *,
    state: str,
    now: datetime,
    answer: Mapping[str, Any] | None = None,
    operation_id: str | None = None,
    refusal: RequestRefused | None = None,
) -> None:
    connection.execute(
        update(_request)
        .where(_request.c.id == request.id, _request.c.state == "pending")
        .values(
            state=state,
            answered_at=now,
            answer=dict(answer or {}),
            operation_id=operation_id,
            refusal=str(refusal) if refusal else "",
            refusal_code=refusal.code if refusal else "",
        )
    )


def _audit(
    connection: Connection,
    cluster: str,
    request: RequestRecord,
    operation_id: str | None,
    outcome: str,
    message: str,
    now: datetime,
) -> None:
    nodes = request.parameters.get("nodes")
    subject = ", ".join(map(str, nodes)) if isinstance(nodes, list) else ""
    target = subject or str(
        request.parameters.get("job")
        or request.parameters.get("operation_id")
        or request.parameters.get("incident_id")
        or ""
    )
    detail = str(request.parameters.get("choice") or request.parameters.get("text") or "")
    # A NUL, which PostgreSQL's text cannot hold, is among the reasons to refuse: the refusal is audited all the same.
    target, detail = target.replace("\x00", ""), detail.replace("\x00", "")
    ledger.audit(
        connection,
        cluster,
        at=now,
        author=request.author,
        action=request.kind,
        target=target[:500],
        target_uid=request.id,
        operation_id=operation_id,
        outcome=outcome,
        message=f"{detail}: {message}" if detail else message,
    )
