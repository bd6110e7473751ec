"""What reads of alerts give (app/store/reads/alerts.py); /v1 and the command line write these."""

from datetime import datetime

import msgspec


class AlertRecord(msgspec.Struct, frozen=True):
    id: str
    labels: dict
    annotations: dict
    severity: str
    state: str
    incident_id: str | None
    operation_id: str | None
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    escalated_at: datetime | None
    inhibited_by: str | None
    silenced_by: list[str]


class SilenceRecord(msgspec.Struct, frozen=True):
    id: str
    kind: str
    matchers: list[dict]
    author: str
    reason: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime
    ended_by: str | None
    origin: str
    hides: int = 0  # open alerts that it hides now, filled by the read


class DeliveryRecord(msgspec.Struct, frozen=True):
    id: str
    receiver: str
    event: str
    message: dict
    state: str
    attempts: int
    created_at: datetime
    next_attempt_at: datetime
    sent_at: datetime | None
    last_error: str


class ReceiverRecord(msgspec.Struct, frozen=True):
    """secret: the name of the file or variable with its address. last_*: of the last message that was tried."""

    name: str
    origin: str  # file, page
    secret: str
    readable: bool | None
    send_resolved: bool
    last_sent_at: datetime | None = None
    last_error: str = ""
    pending: int = 0
    dead: int = 0
