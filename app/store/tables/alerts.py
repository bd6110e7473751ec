"""Alerts, their deliveries (an outbox) and silences."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.store.columns import json_column, optional_time_column, time_column


class Alert(SQLModel, table=True):
    """One episode of something a person must hear of. Identity is the label set."""

    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    labels: dict = json_column()
    annotations: dict = json_column()
    severity: str
    incident_id: str | None = None
    operation_id: str | None = None
    started_at: datetime = time_column()
    ended_at: datetime | None = optional_time_column()


class AlertDelivery(SQLModel, table=True):
    """Outbox: one message to one receiver, sent at least once with one deduplication key."""

    __tablename__ = "alert_delivery"
    id: str = Field(primary_key=True)
    cluster: str
    alert_id: str
    receiver: str
    event: str  # trigger, acknowledge, resolve
    deduplication_key: str
    state: str = "pending"  # pending, sent, dead
    attempts: int = 0
    next_attempt_at: datetime = time_column()
    sent_at: datetime | None = optional_time_column()
    last_error: str = ""

    __table_args__ = (Index("alert_delivery_due", "cluster", "state", "next_attempt_at"),)


class Silence(SQLModel, table=True):
    """A silence with author, reason and end; what it hides stays counted."""

    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    matchers: list = json_column(list)
    author: str
    reason: str
    starts_at: datetime = time_column()
    ends_at: datetime = time_column()
