"""The worker's side of requests: previews are answered, wishes accepted or refused, each in one transaction."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import RequestRefused
from app.operations import admission, incident_requests, ledger
from app.operations.lease import LeaseKeeper, check
from app.operations.model import Choice, Memory
from app.operations.repair_requests import give_back, repair
from app.operations.survey import fresh
from app.operations.wishes import Parameters, read_nodes, read_parameters, read_wish
from app.settings import Settings
from app.store.engine import write
from app.store.reads.rows import table_of
from app.store.records import RequestRecord
from app.store.requests import pending
from app.store.tables import Operation as OperationTable
from app.store.tables import Request
from k8s.nodes import read_hold
from k8s.view import ClusterView

log = structlog.get_logger()

REQUESTS_A_TICK = 50
UNHEARD_SECONDS = 30.0
"""A request waits so long for Kubernetes to be heard; then it is refused rather than left hanging."""

_request = table_of(Request)
_operation = table_of(OperationTable)


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
    ) -> None:
        self._engine = engine
        self._cluster = settings.cluster
        self._settings = settings
        self._view = view
        self._lease = lease
        self._clock = clock

    def tick(self) -> int:
        """Answers the requests that wait, oldest first; gives how many were answered.

        Does nothing while this worker does not hold the lease. Raises StoreError, LeaseLost.
        """
        if self._lease.held() is None:
            return 0
        waiting = pending(self._engine, self._cluster, limit=REQUESTS_A_TICK)
        answered = 0
        for request in waiting:
            answered += self._answer(request)
        return answered

    def _answer(self, request: RequestRecord) -> bool:
        now = self._clock()
        view = fresh(self._view(), now)
        # A cancel or a choice needs no view: it is a word to the reconciler. Nor does one on an incident.
        needs_view = request.kind not in ("cancel", "choose", *incident_requests.KINDS)
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
            with write(self._engine) as connection:
                check(connection, self._cluster, held=self._lease.require(), now=now)
                operation_id, answer = self._handle(connection, request, view, now)
                _store(
                    connection,
                    request,
                    state="answered" if request.kind == "preview" else "accepted",
                    answer=answer,
                    operation_id=operation_id,
                    now=now,
                )
                if request.kind != "preview":
                    _audit(
                        connection, self._cluster, request, operation_id, "done", "Accepted.", now
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
    ) -> tuple[str | None, dict[str, Any]]:
        if request.kind in incident_requests.KINDS:
            return None, incident_requests.answer(connection, self._cluster, request, now)
        parameters = read_parameters(request.parameters)
        match request.kind:
            case "preview":
                return None, self._preview(connection, parameters, view, now)
            case "drain" | "reschedule":
                wish = read_wish(
                    request.kind, parameters, view=view, health=self._health(connection)
                )
                return admission.accept(
                    connection,
                    self._cluster,
                    wish,
                    request=request,
                    parameters=parameters,
                    view=view,
                    settings=self._settings,
                    now=now,
                ), {}
            case "uncordon":
                nodes = read_nodes(parameters, view=view)
                return self._uncordon(connection, request, parameters, nodes, view, now), {}
            case "repair":
                repair(connection, self._cluster, parameters, request=request, view=view)
                return None, {}
            case "return":
                return give_back(
                    connection,
                    self._cluster,
                    parameters,
                    view=view,
                    uncordon=lambda nodes: self._uncordon(
                        connection, request, parameters, nodes, view, now
                    ),
                ), {}
            case "cancel":
                return self._cancel(connection, request, parameters, now), {}
            case "choose":
                return self._choose(connection, request, parameters, now), {}
        raise RequestRefused(f"There is no request of kind {request.kind}.")

    def _preview(
        self, connection: Connection, parameters: Parameters, view: ClusterView, now: datetime
    ) -> dict[str, Any]:
        wish = read_wish(parameters.action, parameters, view=view, health=self._health(connection))
        return admission.plan_of(
            connection, self._cluster, wish, view=view, settings=self._settings, now=now
        )

    def _health(self, connection: Connection) -> dict[str, str]:
        facts = admission.read_facts(connection, self._cluster)
        return {name: node.health for name, node in facts.items()}

    def _uncordon(
        self,
        connection: Connection,
        request: RequestRecord,
        parameters: Parameters,
        nodes: tuple[str, ...],
        view: ClusterView,
        now: datetime,
    ) -> str:
        held = admission.held_nodes(connection, self._cluster)
        typed = set(parameters.confirmation.replace(",", " ").split())
        health = self._health(connection)
        for name in nodes:
            if name in held:
                raise RequestRefused(
                    f"{name} is held by operation {held[name]}: cancel that one first.",
                    code="conflict",
                )
            if parameters.force or name in typed:
                continue
            if health.get(name) == "Failing":
                raise RequestRefused(
                    f"{name} is Failing: repair it first, or type its name (--confirm) to put it in service all the same.",
                    code="protected",
                )
            node = view.nodes[name]
            hold = read_hold(node.metadata)
            if node.spec.unschedulable and (hold is None or hold.was_unschedulable):
                raise RequestRefused(
                    f"{name} was cordoned by somebody else, not by Pitwall: type its name (--confirm) to "
                    "uncordon it all the same, or use kubectl uncordon.",
                    code="protected",
                )
        return admission.open_operation(
            connection,
            self._cluster,
            kind="uncordon",
            subject=", ".join(nodes),
            nodes=nodes,
            request=request,
            now=now,
        )

    def _cancel(
        self,
        connection: Connection,
        request: RequestRecord,
        parameters: Parameters,
        now: datetime,
    ) -> str:
        row = self._open_operation(connection, parameters.operation_id)
        if row.cancel_requested_by is None:
            connection.execute(
                update(_operation)
                .where(_operation.c.id == row.id)
                .values(
                    cancel_requested_by=request.author,
                    state="Cancelling",
                    message=f"Cancelled by {request.author}: taking back what was done.",
                    choices=[],
                    updated_at=now,
                )
            )
        return str(row.id)

    def _choose(
        self,
        connection: Connection,
        request: RequestRecord,
        parameters: Parameters,
        now: datetime,
    ) -> str:
        row = self._open_operation(connection, parameters.operation_id)
        offered = [offer for offer in row.choices if offer.get("name") == parameters.choice]
        if not offered:
            names = ", ".join(dict.fromkeys(str(offer.get("name")) for offer in row.choices))
            raise RequestRefused(
                f"Operation {row.id} does not offer {parameters.choice or 'an empty choice'}: "
                + (f"it offers {names}." if names else "it waits for no choice."),
                code="conflict",
            )
        chosen = [offer for offer in offered if _is_confirmed(offer, parameters.confirmation)]
        if not chosen:
            words = " or ".join(str(offer.get("confirmation")) for offer in offered)
            raise RequestRefused(
                f"{offered[0].get('label')}: to confirm, type {words} (--confirm).", code="invalid"
            )
        memory = msgspec.convert(row.memory or {}, Memory)
        made = tuple(
            Choice(parameters.choice, str(offer.get("subject") or ""), request.author, now)
            for offer in chosen
        )
        memory = msgspec.structs.replace(memory, choices=memory.choices + made)
        connection.execute(
            update(_operation)
            .where(_operation.c.id == row.id)
            .values(
                memory=msgspec.to_builtins(memory),
                state="Running",
                message=f"{request.author} chose: {chosen[0].get('label')}.",
                choices=[],
                updated_at=now,
            )
        )
        return str(row.id)

    def _open_operation(self, connection: Connection, operation_id: str) -> Any:
        row = connection.execute(
            select(_operation)
            .where(_operation.c.cluster == self._cluster, _operation.c.id == operation_id)
            .with_for_update()
        ).first()
        if row is None:
            raise RequestRefused(
                f"There is no operation {operation_id or '(none named)'}: see `pitwall operations --all`.",
                code="not_found",
            )
        if row.ended_at is not None:
            raise RequestRefused(
                f"Operation {operation_id} has ended ({row.state}): there is nothing to do.",
                code="conflict",
            )
        return row

    def _refuse(self, request: RequestRecord, refused: RequestRefused, now: datetime) -> None:
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            _store(connection, request, state="refused", refusal=refused, now=now)
            if request.kind != "preview":
                _audit(connection, self._cluster, request, None, "refused", str(refused), now)
        log.info("request refused", request_id=request.id, kind=request.kind, reason=str(refused))


def _is_confirmed(offer: dict[str, Any], typed: str) -> bool:
    wanted = str(offer.get("confirmation") or "")
    return not wanted or typed.strip() in (wanted, f"{wanted} is powered off")


def _store(
    connection: Connection,
    request: RequestRecord,
    *,
    state: str,
    now: datetime,
    answer: dict[str, Any] | None = None,
    operation_id: str | None = None,
    refusal: RequestRefused | None = None,
) -> None:
    connection.execute(
        update(_request)
        .where(_request.c.id == request.id, _request.c.state == "pending")
        .values(
            state=state,
            answered_at=now,
            answer=answer or {},
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
