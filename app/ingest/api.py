"""/v1: what people's programs read of the fleet, and the requests they write. Each call's author is proved."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from sqlalchemy import Engine

from app.errors import RequestRefused
from app.ingest import alert_api, answers
from app.ingest.errors import Refusal
from app.ingest.identity import Doorkeeper, bearer
from app.ingest.openapi import described
from app.store import requests
from app.store.reads import (
    automatic,
    findings,
    fleet,
    incidents,
    jobs,
    operations,
    permissions,
    repairs,
    status,
)
from app.store.records import OperationRecord, RequestRecord, StatusRecord
from k8s.tokens import TokenIdentity

MOST_ITEMS = 20_000
MAX_REQUEST_BYTES = 256 * 1024

Health = Literal["Healthy", "Degraded", "Failing", "Unknown"]
Service = Literal["In service", "Cordoned", "Draining", "Drained", "Under repair", "Probation"]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Items at most.")]
After = Annotated[str | None, Query(description="`next` of the page before.")]
Text = Annotated[str | None, Query(max_length=300)]

REFUSALS = {
    "not_found": 404,
    "conflict": 409,
    "forbidden": 403,
    "invalid": 400,
}
"""Status of a refusal's word; a limit's or budget's comes as the answer to a request, not here."""

TYPES: list[Any] = [
    StatusRecord,
    answers.NodeList,
    answers.NodeDetail,
    answers.GpuList,
    answers.JobList,
    answers.JobDetail,
    answers.IncidentList,
    answers.IncidentDetail,
    answers.AutomaticList,
    answers.RepairList,
    answers.DiagnosticList,
    answers.OperationList,
    OperationRecord,
    RequestRecord,
    answers.RequestBody,
    answers.Caller,
    *alert_api.TYPES,
]

Item = TypeVar("Item", bound=msgspec.Struct)


def create_router(
    engine: Engine, cluster: str, *, doorkeeper: Doorkeeper, now: Callable[[], datetime]
) -> APIRouter:
    """The routes of /v1."""

    def person(
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> TokenIdentity:
        return doorkeeper.person(bearer(authorization))

    def reader(caller: Annotated[TokenIdentity, Depends(person)]) -> TokenIdentity:
        doorkeeper.check(caller, "list")
        return caller

    router = APIRouter(prefix="/v1")
    reading = APIRouter(dependencies=[Depends(reader)])
    errors = (400, 401, 403, 503)

    @reading.get("/status", tags=["fleet"], **described(StatusRecord, *errors))
    def read_status() -> Response:
        """Counts of the fleet, and whether each source is heard."""
        return _json(status.status(engine, cluster, now()))

    @reading.get("/nodes", tags=["fleet"], **described(answers.NodeList, 404, *errors))
    def list_nodes(
        health: Annotated[Health | None, Query()] = None,
        service: Annotated[Service | None, Query()] = None,
        block: Text = None,
        rack: Text = None,
        search: Text = None,
        order: Annotated[Literal["name", "worst"], Query()] = "name",
        limit: Limit = 100,
        after: After = None,
    ) -> Response:
        """The GPU nodes by name, or the worst first."""
        found = fleet.nodes(
            engine,
            cluster,
            health=health,
            service=service,
            block=block,
            rack=rack,
            search=search,
            order=order,
            limit=limit + 1,
            after=after,
        )
        return _page(answers.NodeList, found, limit, key="name")

    @reading.get("/nodes/{name}", tags=["fleet"], **described(answers.NodeDetail, 404, *errors))
    def read_node(name: str) -> Response:
        """One node with its GPUs, pods, open findings, latest events and open incidents."""
        node = fleet.node(engine, cluster, name)
        if node is None:
            raise _unknown("node", name)
        detail = answers.NodeDetail(
            node=node,
            gpus=fleet.gpus(engine, cluster, node=name),
            pods=fleet.pods_of_node(engine, cluster, name),
            findings=fleet.findings_of_node(engine, cluster, name),
            events=fleet.events_of_node(engine, cluster, name),
            incidents=incidents.incidents_of_node(engine, cluster, name),
        )
        return _json(detail)

    @reading.get("/gpus", tags=["fleet"], **described(answers.GpuList, 404, *errors))
    def list_gpus(
        node: Text = None,
        health: Annotated[Health | None, Query()] = None,
        limit: Limit = 100,
        after: After = None,
    ) -> Response:
        """The GPUs with their latest readings."""
        found = fleet.gpus(engine, cluster, node=node, health=health, limit=limit + 1, after=after)
        return _page(answers.GpuList, found, limit, key="uuid")

    @reading.get("/jobs", tags=["jobs"], **described(answers.JobList, 404, *errors))
    def list_jobs(
        namespace: Text = None,
        state: Text = None,
        node: Text = None,
        at_risk: bool = False,
        open_only: bool = False,
        limit: Limit = 100,
        after: After = None,
    ) -> Response:
        """The training jobs."""
        found = jobs.jobs(
            engine,
            cluster,
            namespace=namespace,
            state=state,
            node=node,
            at_risk=at_risk,
            open_only=open_only,
            limit=limit + 1,
            after=after,
        )
        return _page(answers.JobList, found, limit, key="uid")

    @reading.get("/jobs/{uid}", tags=["jobs"], **described(answers.JobDetail, 404, *errors))
    def read_job(uid: str) -> Response:
        """One job by UID with its ranks and pods."""
        job = jobs.job(engine, cluster, uid)
        if job is None:
            raise _unknown("job", uid)
        detail = answers.JobDetail(
            job=job,
            ranks=jobs.ranks(engine, cluster, job.uid),
            pods=jobs.pods_of_job(engine, cluster, job.uid),
        )
        return _json(detail)

    @reading.get("/incidents", tags=["incidents"], **described(answers.IncidentList, 404, *errors))
    def list_incidents(open_only: bool = True, limit: Limit = 100, after: After = None) -> Response:
        """The open incidents: those first that hurt the most jobs times GPUs now, then the gravest.

        With open_only=false the resolved ones follow, the newest first.
        """
        found = incidents.incidents(
            engine, cluster, open_only=open_only, limit=limit + 1, after=after
        )
        return _page(answers.IncidentList, found, limit, key="id")

    @reading.get(
        "/incidents/{incident_id}",
        tags=["incidents"],
        **described(answers.IncidentDetail, 404, *errors),
    )
    def read_incident(incident_id: str) -> Response:
        """One incident with its timeline and findings."""
        incident = incidents.incident(engine, cluster, incident_id)
        if incident is None:
            raise _unknown("incident", incident_id)
        detail = answers.IncidentDetail(
            incident=incident,
            timeline=incidents.timeline(engine, cluster, incident_id),
            findings=findings.findings_of_episodes(engine, cluster, incident.findings),
        )
        return _json(detail)

    @reading.get(
        "/operations", tags=["operations"], **described(answers.OperationList, 404, *errors)
    )
    def list_operations(
        open_only: bool = False, node: Text = None, limit: Limit = 100, after: After = None
    ) -> Response:
        """Operations, the newest first, without their steps."""
        found = operations.operations(
            engine, cluster, open_only=open_only, node=node, limit=limit + 1, after=after
        )
        return _page(answers.OperationList, found, limit, key="id")

    @reading.get(
        "/operations/{operation_id}",
        tags=["operations"],
        **described(OperationRecord, 404, *errors),
    )
    def read_operation(operation_id: str) -> Response:
        """One operation with its steps."""
        operation = operations.operation(engine, cluster, operation_id)
        if operation is None:
            raise _unknown("operation", operation_id)
        return _json(operation)

    @reading.get("/repairs", tags=["repairs"], **described(answers.RepairList, *errors))
    def list_repairs(node: Text = None, gpu: Text = None, limit: Limit = 100) -> Response:
        """Repairs, the newest first; `gpu`: a UUID or serial number."""
        found = repairs.repairs(engine, cluster, node=node, gpu=gpu, limit=limit)
        failed = repairs.failed_again(engine, cluster, [one.node for one in found], now=now())
        return _json(answers.RepairList(items=found, failed_again=failed))

    @reading.get("/diagnostics", tags=["repairs"], **described(answers.DiagnosticList, *errors))
    def list_diagnostics(node: Text = None, limit: Limit = 100) -> Response:
        """Diagnostics, the newest first."""
        found = repairs.diagnostics(engine, cluster, node=node, limit=limit)
        return _json(answers.DiagnosticList(items=found))

    @reading.get("/automatic", tags=["operations"], **described(answers.AutomaticList, *errors))
    def list_automatic(open_only: bool = False, limit: Limit = 100) -> Response:
        """What automatic mode asked for, would have, or left alone; what changed last first."""
        found = automatic.automatic_actions(engine, cluster, open_only=open_only, limit=limit)
        return _json(answers.AutomaticList(items=found))

    @reading.get(
        "/requests/{request_id}", tags=["operations"], **described(RequestRecord, 404, *errors)
    )
    def read_request(request_id: str) -> Response:
        """One request with the worker's answer so far."""
        found = requests.request(engine, cluster, request_id)
        if found is None:
            raise _unknown("request", request_id)
        return _json(found)

    reading.include_router(alert_api.create_router(engine, cluster, now=now))

    async def request_body(request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_REQUEST_BYTES:
                raise Refusal(413, "too_large", f"a request has at most {MAX_REQUEST_BYTES} bytes")
        return bytes(body)

    @router.post(
        "/requests",
        tags=["operations"],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/RequestBody"}}
                },
            }
        },
        **described(RequestRecord, 409, 413, *errors, status=202),
    )
    def write_request(
        caller: Annotated[TokenIdentity, Depends(person)],
        body: Annotated[bytes, Depends(request_body)],
    ) -> Response:
        """Ask the worker for something; its answer is read at /v1/requests/{id}.

        A preview needs the right to list nodes, everything else to patch them.
        """
        try:
            asked = msgspec.json.decode(body, type=answers.RequestBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, "invalid", f"the request can't be read: {error}") from error
        doorkeeper.check(caller, "list" if asked.kind == "preview" else "patch")
        written = requests.submit(
            engine,
            cluster,
            kind=asked.kind,
            parameters=asked.parameters,
            author=caller.username,
            author_groups=caller.groups,
            reason=asked.reason,
            idempotency_key=asked.idempotency_key,
            now=now(),
            actor="ingest",
        )
        return _json(written, status=202)

    @router.get("/whoami", tags=["people"], **described(answers.Caller, 401, 503))
    def whoami(caller: Annotated[TokenIdentity, Depends(person)]) -> Response:
        """Whom the token stands for, and what they may do here."""
        known = permissions.permissions(engine, cluster, caller.username, now=now())

        def may(verb: str) -> bool:
            said = permissions.allowed(known, verb, "nodes")
            return doorkeeper.may(caller, verb)[0] if said is None else said

        known_caller = answers.Caller(
            username=caller.username,
            groups=list(caller.groups),
            may_read=may("list"),
            may_write=may("patch"),
            permissions=known,
        )
        return _json(known_caller)

    router.include_router(reading)
    return router


def refusal_of(error: RequestRefused) -> Refusal:
    """The answer to a request that the store refused."""
    return Refusal(REFUSALS.get(error.code, 400), error.code, str(error))


def _json(answer: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status_code=status, media_type="application/json")


def _page(kind: Any, found: list[Any], limit: int, *, key: str) -> Response:
    """A page of at most `limit` of the items found, which are one more where another page follows."""
    items = found[:limit]
    more = len(found) > limit
    return _json(kind(items=items, next=getattr(items[-1], key) if more else None))


def _unknown(kind: str, name: str) -> Refusal:
    return Refusal(404, "not_found", f"There is no {kind} {name}.")
