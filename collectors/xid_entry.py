"""What an entry of the catalogue of XIDs and SXids holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from collectors.report import Severity

ClearedBy = Literal["time", "pod", "reset", "boot"]
"""What ends a finding: time passing, its pods gone, a GPU reset (or boot), only a boot."""

XidClass = Literal[
    "application", "driver", "memory", "hardware", "firmware", "nvlink", "security", "other"
]


@dataclass(frozen=True)
class XidEntry:
    """One code: its name and class, how bad it is, what to do, and what ends the finding.

    `explanation` says in two sentences what happened and what follows from it, `look_at` where
    the next clue is.
    """

    code: int
    name: str
    group: XidClass
    severity: Severity
    action: str
    explanation: str = ""
    look_at: str = ""
    cleared_by: ClearedBy = "reset"
    changes_health: bool = True
