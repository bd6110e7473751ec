"""Automatic mode's turn: reads what is found, decides, and asks by request as anybody does. Off without rules.

What was asked and what became of it is one row for each rule and episode, written in the transaction that
writes the request, so that a worker that is killed anywhere asks nothing twice.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine

from app.operations import automatic_store as kept
from app.operations import pause, trips
from app.operations.automatic import (
    ACCEPTED,
    LEFT,
    WAITING,
    WOULD_ACT,
    Ask,
    Decision,
    Left,
    OpenFinding,
    Rows,
    decide,
    halved,
)
from app.operations.automatic_rules import AutomaticRule
from app.operations.lease import LeaseKeeper, check
from app.settings import Settings
from app.store import requests
from app.store.engine import read, write
from app.store.reads.status import counts
from app.store.records import RequestRecord

log = structlog.get_logger()

OURS = ("limit", "paused", "unavailable", "forbidden")
"""Refusals that would meet fewer nodes too; any other may be of one node that holds up the rest."""


TIDY_PERIOD = timedelta(seconds=10)
"""How often rows are ended whose finding closed before anything was done."""


class Automatic:
    """Decides on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        rules: Sequence[AutomaticRule],
        *,
        settings: Settings,
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._cluster = settings.cluster
        self._settings = settings
        self._lease = lease
        self._clock = clock
        self._tidied_at: datetime | None = None

    def tick(self) -> int:
        """Takes in answers, then asks for what is due; gives how many requests were written.

        Raises StoreError, LeaseLost.
        """
        if not self._rules or self._lease.held() is None:
            return 0
        self._take_answers()
        now = self._clock()
        with read(self._engine) as connection:
            findings = kept.read_findings(connection, self._cluster)
            rows = kept.read_rows(connection, self._cluster)
            nodes = kept.read_node_states(
                connection,
                self._cluster,
                {finding.node for finding in findings},
                silence_seconds=self._settings.silence_seconds,
                now=now,
            )
            standstill = self._standstill(connection, now)
            world = self._world(connection)
        decision = decide(
            self._rules, findings, nodes, rows, standstill=standstill, world=world, now=now
        )
        self._write(decision, findings, rows, now)
        return len(decision.asks)

    def _standstill(self, connection: Connection, now: datetime) -> str:
        """Why nothing may be done now, "" where it may."""
        held = pause.read_pause(connection, self._cluster)
        if held is not None:
            return held.said
        for mark in trips.read_marks(connection, self._cluster).values():
            if mark.tripped_at is not None:
                return f"The limit {mark.name} tripped: a person must reset it."
        return kept.blind_source(
            connection, self._cluster, silence_seconds=self._settings.silence_seconds, now=now
        )

    def _world(self, connection: Connection) -> str:
        """What a refusal may have rested on, in a few words: when they change it is asked again."""
        seen = counts(self._engine, self._cluster)
        resets = [
            f"{mark.name}@{mark.reset_at:%s}"
            for mark in trips.read_marks(connection, self._cluster).values()
            if mark.reset_at is not None
        ]
        out = sum(count for name, count in seen.nodes_by_service.items() if name != "In service")
        return f"{seen.gpus_free} free, {out} out, {seen.operations_open} open {' '.join(resets)}"

    def _write(
        self, decision: Decision, findings: Sequence[OpenFinding], rows: Rows, now: datetime
    ) -> None:
        names = {finding.episode: finding.rule for finding in findings}
        news = [left for left in decision.left if not _is_known(left, rows)]
        tidies = self._tidied_at is None or now - self._tidied_at >= TIDY_PERIOD
        if not (decision.asks or news or tidies):
            return
        self._tidied_at = now
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            kept.end_closed(connection, self._cluster, now)
            for left in news:
                kept.write_left(
                    connection, self._cluster, left, finding=names[left.episode], rows=rows, now=now
                )
            for ask in decision.asks:
                asked = self._ask(connection, ask, names, now)
                kept.write_asked(
                    connection,
                    self._cluster,
                    ask,
                    rules=names,
                    request_id=asked.id,
                    rows=rows,
                    now=now,
                )
        for ask in decision.asks:
            log.info(
                "automatic mode asks",
                rule=ask.rule.name,
                acts=ask.rule.acts,
                action=ask.rule.action,
                nodes=list(ask.nodes[:20]),
                count=len(ask.nodes),
            )

    def _ask(
        self, connection: Connection, ask: Ask, names: dict[str, str], now: datetime
    ) -> RequestRecord:
        kind = "reschedule" if ask.job is not None else "drain"
        parameters = {**ask.wish, "automatic": True}
        if ask.rule.acts == "dry-run":
            kind, parameters = "preview", {"action": kind, **parameters}
        why = ", ".join(sorted({names[episode] for episode, _ in ask.subjects}))
        tried = f"{ask.rule.name}\n{now.isoformat()}\n" + "\n".join(
            episode for episode, _ in ask.subjects
        )
        return requests.submit_within(
            connection,
            self._cluster,
            kind=kind,
            parameters=parameters,
            author=self._settings.automatic_user,
            reason=f"Automatic rule {ask.rule.name}: {why}",
            idempotency_key=f"automatic-{hashlib.sha256(tried.encode()).hexdigest()[:32]}",
            now=now,
            actor="worker",
        )

    def _take_answers(self) -> None:
        now = self._clock()
        with read(self._engine) as connection:
            waiting = kept.asked_for(connection, self._cluster)
            world = self._world(connection) if waiting else ""
        for request_id, nodes in waiting.items():
            answer = requests.request(self._engine, self._cluster, request_id)
            if answer is not None and answer.state == "pending":
                continue
            with write(self._engine) as connection:
                check(connection, self._cluster, held=self._lease.require(), now=now)
                kept.settle(
                    connection,
                    self._cluster,
                    request_id,
                    updated_at=now,
                    **_outcome(answer, nodes=nodes, world=world),
                )


def _is_known(left: Left, rows: Rows) -> bool:
    known = rows.get((left.rule.name, left.episode))
    return known is not None and (known.state, known.reason) == (LEFT, left.reason)


def _outcome(answer: RequestRecord | None, *, nodes: int, world: str) -> dict[str, object]:
    """What a request's answer makes of its rows."""
    if answer is None:  # dropped by retention: it was never answered
        return {"state": WAITING, "reason": "The request is gone.", "world": ""}
    if answer.state == "accepted":
        return {"state": ACCEPTED, "operation_id": answer.operation_id, "reason": ""}
    if answer.state == "answered":
        return {"state": WOULD_ACT, "reason": _would(answer.answer)}
    if nodes > 1 and answer.refusal_code not in OURS:
        return {
            "state": WAITING,
            "reason": answer.refusal,
            "world": "",
            "together": halved(nodes),
        }
    return {"state": WAITING, "reason": answer.refusal, "world": world}


def _would(plan: dict) -> str:
    """A dry-run's plan in one sentence; the request keeps all of it."""
    moved = sum(
        pod.get("action") not in ("skip", "block", "let_complete") for pod in plan.get("pods", ())
    )
    said = f"{len(plan.get('nodes', ()))} nodes, {moved} pods and {len(plan.get('jobs', ()))} jobs would move."
    against = [*plan.get("blockers", ())]
    if (plan.get("limits") or {}).get("verdict") == "refused":
        against.append("A limit would refuse it.")
    return f"{said} Refused it would be: {' '.join(against)}" if against else said
