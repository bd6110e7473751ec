"""Alerts, the notification log of their groups, their deliveries (an outbox), silences and receivers."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from app.store.columns import json_column, optional_time_column, time_column


class Alert(SQLModel, table=True):
    """One episode of something a person must hear of. Identity is the label set.

    At most one is open for a label set. What inhibits or silences it is kept, so that it stays counted.
    `state`: firing, unknown (what it rests on is blind: neither firing anew nor resolved), resolved.
    """

    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    fingerprint: str  # of the label set
    labels: dict = json_column()
    annotations: dict = json_column()
    severity: str  # info, warning, critical, fatal
    state: str = "firing"
    incident_id: str | None = None
    operation_id: str | None = None
    started_at: datetime = time_column()
    updated_at: datetime = time_column()
    ended_at: datetime | None = optional_time_column()
    acknowledged_at: datetime | None = optional_time_column()
    acknowledged_by: str | None = None
    escalated_at: datetime | None = optional_time_column()
    inhibited_by: str | None = None  # fingerprint of the alert that mutes it
    silenced_by: list = json_column(list)  # ids of silences

    __table_args__ = (
        Index(
            "alert_one_open",
            "cluster",
            "fingerprint",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("alert_by_start", "cluster", "started_at"),
    )


class AlertGroup(SQLModel, table=True):
    """The notification log: what a receiver was last told of a group, and when it is told again.

    `told`: {alert id: {"event", "at"}}, so that resolved goes only where the firing went.
    """

    __tablename__ = "alert_group"
    cluster: str = Field(primary_key=True)
    receiver: str = Field(primary_key=True)
    key: str = Field(primary_key=True)  # of the route and the values it groups by
    labels: dict = json_column()
    told: dict = json_column()
    opened_at: datetime = time_column()
    due_at: datetime | None = optional_time_column()
    notified_at: datetime | None = optional_time_column()


class AlertDelivery(SQLModel, table=True):
    """Outbox: one message to one receiver, sent at least once with one deduplication key.

    `id` is the idempotency key. `message`: {"title", "body", "link", "severity", "group", "alerts"}, text
    as it is sent, without any secret. Of one deduplication key they go in the order of `number`.
    `state`: pending, sent, dead (given up, a person may send it again), dropped (a person's word).
    """

    __tablename__ = "alert_delivery"
    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    number: int = 0  # order within its deduplication key
    receiver: str
    group_key: str
    alert_ids: list = json_column(list)
    event: str  # trigger, acknowledge, resolve, test
    deduplication_key: str  # at most 255 characters
    message: dict = json_column()
    state: str = "pending"
    attempts: int = 0
    created_at: datetime = time_column()
    next_attempt_at: datetime = time_column()
    claimed_until: datetime | None = optional_time_column()
    sent_at: datetime | None = optional_time_column()
    last_error: str = ""

    __table_args__ = (
        Index("alert_delivery_due", "cluster", "state", "next_attempt_at"),
        Index("alert_delivery_by_key", "cluster", "receiver", "deduplication_key"),
    )


class Silence(SQLModel, table=True):
    """A silence or a maintenance window with author, reason and end; what it hides stays counted.

    `matchers`: [{"label", "op", "value"}], op one of = != =~ !~, all must hold.
    """

    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    kind: str = "silence"  # silence, maintenance
    matchers: list = json_column(list)
    author: str
    reason: str
    created_at: datetime = time_column()
    starts_at: datetime = time_column()
    ends_at: datetime = time_column()
    ended_by: str | None = None  # who ended it early
    alertmanager_id: str | None = None  # its id there, where it is written there too
    origin: str = "pitwall"  # pitwall, alertmanager


class AlertReceiver(SQLModel, table=True):
    """A receiver made on the page. Its address is a secret by name (a file or a variable), never stored here."""

    __tablename__ = "alert_receiver"
    cluster: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    secret: str  # name of the file in PITWALL_ALERT_SECRETS_DIR or of the variable PITWALL_ALERT_SECRET_*
    matchers: list = json_column(list)
    send_resolved: bool = True
    created_by: str
    created_at: datetime = time_column()
    disabled_at: datetime | None = optional_time_column()
