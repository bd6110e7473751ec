"""What is found from the cluster's centre rather than on a node: by Kubernetes's word, dcgm-exporter's
series, or the readings of one job side by side.

A source says each time the whole of what it finds; who keeps them (app/store/writes/central.py)
opens what is new and closes what is said no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from collectors.report import Severity

CentralSource = Literal["kubernetes", "training", "dcgm"]


@dataclass(frozen=True)
class CentralFinding:
    """One fault seen centrally. (rule, node, gpu_uuid, subject) names it within its source while it is open.

    `node`: where it is, or where the suspect is; "" where no node can be named. `subject` tells
    apart what rule, node and GPU do not: a condition's type, a job's UID. `job_uid`, `rank`,
    `pod_uids`: whom it concerns, where the rule knows. `since`: when it began to hold, aware UTC.
    """

    rule: str
    node: str
    severity: Severity
    message: str
    action: str
    since: datetime
    gpu_uuid: str | None = None
    subject: str = ""
    job_uid: str | None = None
    rank: int | None = None
    pod_uids: tuple[str, ...] = ()
    changes_health: bool = True
    explanation: str | None = None
    look_next: str | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is known by within its source."""
        return (self.rule, self.node, self.gpu_uuid or "", self.subject)
