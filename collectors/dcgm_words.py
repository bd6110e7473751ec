"""What goes into the desk of dcgm-exporter's nodes (collectors/dcgm_desk.py) and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from collectors.report import Finding, XidEvent


@dataclass(frozen=True)
class NodeWord:
    """What others know of a node: its name in the cluster, its boot (None: not known now), and the
    highest number of GPUs ever seen on it."""

    name: str
    boot_id: str | None = None
    expected_gpus: int = 0


@dataclass(frozen=True)
class Adopted:
    """A finding that is open in the store, with the boot of its node that was stored with it."""

    host: str
    boot_id: str
    finding: Finding


@dataclass(frozen=True)
class HostVerdict:
    """What one poll says of a host: open findings worst first, new XIDs, GPUs that are there, the
    number that is expected, and how many of the site's GPU rules cannot be judged here."""

    word: NodeWord
    boot_id: str
    age_seconds: float
    findings: tuple[Finding, ...]
    xids: tuple[XidEvent, ...]
    gpu_count: int
    expected_gpus: int
    unjudged_rules: int
    gpu_rules: int
