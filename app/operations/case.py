"""One request as it is answered: what was asked, the world it is judged by, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.operations.wishes import Parameters
from app.settings import Settings
from app.store.records import RequestRecord
from k8s.view import ClusterView


@dataclass(frozen=True)
class Case:
    """A request under judgement, inside the writing transaction that will keep its answer."""

    connection: Connection
    cluster: str
    request: RequestRecord
    parameters: Parameters
    view: ClusterView
    settings: Settings
    now: datetime


@dataclass(frozen=True)
class Outcome:
    """What came of a request. state: as the request's; message: for the audit."""

    operation_id: str | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    state: str = "accepted"
    message: str = "Accepted."
