"""What a person works on: the open faults of one cause, whom they hurt, and what to do. Pure.

`group_troubles` says which incidents should be open; app/incidents/lifetime.py when one ends, comes back, or
is a new one. It stands on facts/gpu-health.md; thresholds name their source.
"""

from app.incidents.causes import FOLLOWS_SECONDS
from app.incidents.classes import NOT_READY, SILENT
from app.incidents.domains import DOMAIN_SECONDS, LEAST_NODES, places_to_count
from app.incidents.grouping import group_troubles
from app.incidents.hours import count_gpus, gpu_hours_lost
from app.incidents.model import (
    Evidence,
    Fault,
    HurtJob,
    JobFact,
    NodeFact,
    PodFact,
    Standing,
    Trouble,
    World,
)
from app.incidents.silence import find_mass_silence

__all__ = [
    "DOMAIN_SECONDS",
    "FOLLOWS_SECONDS",
    "LEAST_NODES",
    "NOT_READY",
    "SILENT",
    "Evidence",
    "Fault",
    "HurtJob",
    "JobFact",
    "NodeFact",
    "PodFact",
    "Standing",
    "Trouble",
    "World",
    "count_gpus",
    "find_mass_silence",
    "gpu_hours_lost",
    "group_troubles",
    "places_to_count",
]
