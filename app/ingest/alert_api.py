"""/v1 of alerts: alerts, silences, deliveries, receivers."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from sqlalchemy import Engine

from app.ingest.openapi import described
from app.store.alert_records import AlertRecord, DeliveryRecord, ReceiverRecord, SilenceRecord
from app.store.reads import alerts as reads

Limit = Annotated[int, Query(ge=1, le=20_000, description="Items at most.")]


class AlertList(msgspec.Struct, frozen=True):
    """Alerts, the newest first; silenced and inhibited ones are among them."""

    items: list[AlertRecord]


class SilenceList(msgspec.Struct, frozen=True):
    """Silences and maintenance windows, those that last longest first."""

    items: list[SilenceRecord]


class DeliveryList(msgspec.Struct, frozen=True):
    """Messages of the outbox, the newest first; lag_seconds: age of the oldest that is not delivered."""

    items: list[DeliveryRecord]
    lag_seconds: float


class ReceiverList(msgspec.Struct, frozen=True):
    """Receivers by name; never an address."""

    items: list[ReceiverRecord]


TYPES: list[Any] = [AlertList, SilenceList, DeliveryList, ReceiverList]


def create_router(engine: Engine, cluster: str, *, now: Callable[[], datetime]) -> APIRouter:
    """The routes; who may read is the caller's to check."""
    router = APIRouter(tags=["alerts"])
    errors = (400, 401, 403, 503)

    @router.get("/alerts", **described(AlertList, *errors))
    def list_alerts(open_only: bool = True, limit: Limit = 200) -> Response:
        """Alerts with what silences or inhibits them."""
        found = reads.alerts(engine, cluster, open_only=open_only, limit=limit)
        return _json(AlertList(found))

    @router.get("/silences", **described(SilenceList, *errors))
    def list_silences(over: bool = False, limit: Limit = 200) -> Response:
        """Silences and maintenance windows; over=true: past ones too."""
        return _json(
            SilenceList(reads.silences(engine, cluster, now=now(), over=over, limit=limit))
        )

    @router.get("/deliveries", **described(DeliveryList, *errors))
    def list_deliveries(
        state: Literal["pending", "sent", "dead", "dropped"] | None = None, limit: Limit = 100
    ) -> Response:
        """What was sent, waits, or was given up."""
        found = reads.deliveries(engine, cluster, state=state, limit=limit)
        lag = reads.delivery_lag_seconds(engine, cluster, now=now())
        return _json(DeliveryList(found, lag))

    @router.get("/receivers", **described(ReceiverList, *errors))
    def list_receivers() -> Response:
        """Who is told, and how that went."""
        return _json(ReceiverList(reads.receivers(engine, cluster)))

    return router


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
