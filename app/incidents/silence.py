"""Many nodes missed at once: the pipeline is at fault and not they. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from math import floor

MASS_RATIO = 0.05
MASS_SECONDS = 60.0
"""More than 5 % of the nodes within 60 s are one incident of the pipeline (facts/gpu-health.md)."""

LEAST_MASS = 3
"""Fewer nodes are never a mass: in a cluster of 16 a single node is more than 5 %. Our judgement."""

RETURN_SECONDS = 60.0
"""When the mass is heard again, those still missed are nodes with a fault only after so long. Our judgement:
agents that were cut off come back spread over their retries."""

AGENTS = "agents"
KUBELETS = "kubelets"


def find_mass_silence(silent_since: Mapping[str, datetime], *, nodes_total: int) -> frozenset[str]:
    """The nodes that fell silent together: all in any 60 s that hold more than 5 % of the nodes."""
    least = max(LEAST_MASS, floor(nodes_total * MASS_RATIO) + 1)
    ordered = sorted(silent_since.items(), key=lambda item: (item[1], item[0]))
    window = timedelta(seconds=MASS_SECONDS)
    found: set[str] = set()
    start = done = 0
    for end, (_, at) in enumerate(ordered):
        while at - ordered[start][1] > window:
            start += 1
        if end - start + 1 >= least:
            found.update(node for node, _ in ordered[max(start, done) : end + 1])
            done = end + 1
    return frozenset(found)


def is_returning(ended_at: datetime | None, now: datetime) -> bool:
    """Whether the mass came back so lately that those still missed may yet come."""
    return ended_at is None or now - ended_at < timedelta(seconds=RETURN_SECONDS)
