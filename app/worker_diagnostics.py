"""Carries diagnostics out: makes each one's Job once, follows it to its end, tells what it said.

A worker that dies between two calls loses and doubles none: the Job's name follows from the diagnostic,
an answer that it exists already is looked at, and what bears our annotation is ours.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import Engine, select

from app.operations.access import Access
from app.operations.calls import FencedConnection
from app.operations.diagnostics import ANNOTATION, job_for, job_name, last_words, verdict_of
from app.operations.events import EventWriter
from app.operations.lease import LeaseKeeper, check
from app.operations.ledger import audit
from app.operations.pause import read_pause
from app.operations.people import person_of
from app.operations.request_rights import CHANGE, DIAGNOSE
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import NodeDiagnostic
from app.store.writes.repairs import change_diagnostic, tell_node
from k8s.client import Connection
from k8s.errors import ApiError, KubernetesError
from k8s.events import Note, Subject
from k8s.resources import NODES
from k8s.view import ClusterView

log = structlog.get_logger()

_diagnostic = table_of(NodeDiagnostic)


class Diagnostics:
    """Acts on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        template: dict[str, Any] | None,
        *,
        settings: Settings,
        view: Callable[[], ClusterView],
        access: Access | None,
        lease: LeaseKeeper,
        events: EventWriter | None,
        clock: Callable[[], datetime],
    ) -> None:
        """template: the site's Job; without one none is made, and those under way are followed."""
        self._engine = engine
        self._cluster = settings.cluster
        self._connection = FencedConnection(connection, lease.require)
        self._template = template
        self._view = view
        self._access = access
        self._lease = lease
        self._events = events
        self._clock = clock

    def tick(self) -> int:
        """Takes each open diagnostic one step on; gives how many are open. Raises StoreError, LeaseLost."""
        if self._lease.held() is None:
            return 0
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_diagnostic)
                .where(_diagnostic.c.cluster == self._cluster, _diagnostic.c.ended_at.is_(None))
                .order_by(_diagnostic.c.requested_at)
            ).all()
            paused = read_pause(connection, self._cluster) if rows else None
        for row in rows:
            try:
                if row.state == "asked":
                    if paused is None:
                        self._make(row)
                else:
                    self._follow(row)
            except KubernetesError as error:
                if row.message != str(error)[:500]:
                    self._change(row, message=str(error)[:500])
        return len(rows)

    def _make(self, row: Any) -> None:
        if self._template is None:
            self._end(row, "gone", "The worker has no PITWALL_DIAGNOSTIC_JOB any more.")
            return
        if self._access is not None:
            groups = None if row.requested_groups is None else json.loads(row.requested_groups)
            person = person_of(row.requested_by, groups, self._access.local)
            verdict = self._access.may(
                person, (CHANGE, msgspec.structs.replace(DIAGNOSE, namespace=row.namespace))
            )
            if verdict.allowed is None:
                return
            if not verdict.allowed:
                self._end(row, "gone", verdict.message)
                return
        node = self._view().nodes.get(row.node)
        if node is None or node.metadata.uid != row.node_uid or not node.spec.unschedulable:
            self._end(row, "gone", f"{row.node} was uncordoned or replaced before it began.")
            return
        body = job_for(self._template, node=row.node, diagnostic_id=row.id, author=row.requested_by)
        path = f"/apis/batch/v1/namespaces/{row.namespace}/jobs"
        try:
            made = json.loads(self._connection.request("POST", path, body=body).body)
        except ApiError as error:
            if error.status == 409:
                made = self._job(row)
                if made is None or _ours(made) != row.id:
                    self._end(row, "gone", f"Job {job_name(row.id)} is there and is not Pitwall's.")
                    return
            elif 400 <= error.status < 500 and error.status not in (401, 408, 429):
                self._end(row, "gone", str(error)[:500])
                return
            else:
                raise
        self._change(
            row, state="running", job_uid=made["metadata"]["uid"], message="", told="diagnose"
        )

    def _follow(self, row: Any) -> None:
        job = self._job(row)
        if job is None or job["metadata"]["uid"] != row.job_uid:
            self._end(row, "gone", "Its Job was removed before it ended.")
            return
        verdict = verdict_of(job)
        if verdict is None:
            return
        state, why = verdict
        pods = json.loads(
            self._connection.get(
                f"/api/v1/namespaces/{row.namespace}/pods",
                {"labelSelector": f"batch.kubernetes.io/job-name={row.job}"},
            )
        )["items"]
        self._end(row, state, ". ".join(filter(None, (why, last_words(pods)))))

    def _job(self, row: Any) -> dict[str, Any] | None:
        try:
            path = f"/apis/batch/v1/namespaces/{row.namespace}/jobs/{row.job}"
            found: dict[str, Any] = json.loads(self._connection.get(path))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def _end(self, row: Any, state: str, message: str) -> None:
        self._change(row, state=state, message=message, ended_at=self._clock(), told="diagnosed")
        log.info("diagnostic ended", node=row.node, diagnostic=row.id, state=state)

    def _change(self, row: Any, *, told: str = "", **values: Any) -> None:
        now = self._clock()
        state = values.get("state", row.state)
        said = f"Diagnostic {row.id} of {row.node}: {state}" + (
            f", {values['message']}" if values.get("message") else ""
        )
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            change_diagnostic(connection, self._cluster, row.id, **values)
            if told:
                audit(
                    connection,
                    self._cluster,
                    at=now,
                    author=row.requested_by,
                    action=told,
                    target=f"Job/{row.namespace}/{row.job}",
                    target_uid=values.get("job_uid") or row.job_uid or "",
                    outcome="failed" if state in ("failed", "gone") else "done",
                    message=said,
                )
                tell_node(connection, self._cluster, row.node, said, now=now)
        if told and self._events is not None:
            self._events.write(
                Note(
                    Subject.of(NODES, row.node, row.node_uid),
                    reason="PitwallDiagnostic",
                    action=told,
                    text=f"{said[:900]} (for {row.requested_by})",
                    at=now,
                    warning=state in ("failed", "gone"),
                )
            )


def _ours(job: dict[str, Any]) -> str:
    return str((job["metadata"].get("annotations") or {}).get(ANNOTATION, ""))
