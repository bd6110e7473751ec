"""The GPUs of one job side by side, as columns, and what is fresh enough to be judged.

A value that is not known is NaN. Needs numpy, which the agent does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Names = npt.NDArray[np.object_]
Mask = npt.NDArray[np.bool_]

STALE_SECONDS = 45.0
"""A reading older than this says nothing of now (facts/gpu-health.md: Unknown after 45 s)."""

SKEW_SECONDS = 45.0
"""A reading from further ahead than this is one of a clock that is wrong; judgement."""

GAP_SECONDS = 45.0
"""A sign that was not seen for longer begins anew: three rounds of reports; judgement."""

SETTLE_SECONDS = 180.0
"""A gang that runs for less still compiles and loads; judgement."""

FRESH_SHARE = 0.5
"""Share of a job's ranks that must be fresh for anything to be said of it; judgement."""

FEW_SHARE = 0.05
"""More ranks than this share are no few that are apart from the rest; judgement."""


@dataclass(frozen=True, eq=False)
class JobGpus:
    """One gang's GPUs; all columns have one length.

    `ranks`: how many it wants. `running_since`: when the last of its pods began to run, aware UTC,
    None where nobody knows. `rank` is below 0, another number for each pod, where the pod has none; `gpu_uuid` is "" for a GPU that a
    pod should have and nobody reports. `running`: whether the pod runs. `age_seconds`: of the
    reading, NaN where there is none. `reasons`: NVML's bits of clock event reasons.
    """

    uid: str
    name: str
    ranks: int
    running_since: datetime | None
    rank: Whole
    node: Names
    gpu_index: Column
    gpu_uuid: Names
    running: Mask
    age_seconds: Column
    utilization_ratio: Column
    power_watts: Column
    power_limit_watts: Column
    sm_clock_hertz: Column
    reasons: Column
    is_gang: bool = True

    @cached_property
    def fresh(self) -> Mask:
        """GPUs whose reading is new and says how busy they are."""
        is_new = (self.age_seconds <= STALE_SECONDS) & (self.age_seconds >= -SKEW_SECONDS)
        return is_new & (self.utilization_ratio == self.utilization_ratio)

    @cached_property
    def rank_count(self) -> int:
        """Ranks that it wants, or has, whichever are more."""
        return max(self.ranks, len(np.unique(self.rank)), 1)

    def is_settled(self, now: datetime) -> bool:
        """Whether it has run long enough to be judged."""
        begun = self.running_since
        return begun is not None and now - begun >= timedelta(seconds=SETTLE_SECONDS)

    @property
    def is_heard(self) -> bool:
        """Whether enough of it is fresh: half of its ranks, and two GPUs."""
        fresh = self.fresh
        heard = len(np.unique(self.rank[fresh]))
        return int(fresh.sum()) >= 2 and bool(heard >= FRESH_SHARE * self.rank_count)

    def are_few(self, mask: Mask) -> bool:
        """Whether these GPUs are of one rank, one node, or at most a twentieth of the ranks."""
        ranks = len(np.unique(self.rank[mask]))
        if ranks <= max(1.0, FEW_SHARE * self.rank_count):
            return True
        nodes = self.node[mask]
        is_one_node = bool((nodes == nodes[0]).all())
        return is_one_node and not bool((self.node == nodes[0]).all())

    def in_order(self, mask: Mask) -> list[int]:
        """Return the places of these GPUs by rank, node and index."""
        places = np.flatnonzero(mask).tolist()
        return sorted(
            places,
            key=lambda at: (
                int(self.rank[at]),
                str(self.node[at]),
                float(np.nan_to_num(self.gpu_index[at], nan=99.0)),
                str(self.gpu_uuid[at]),
            ),
        )

    def tell_place(self, at: int) -> str:
        """Name a GPU: "rank 17 on h100-b01-r2-n3, GPU 3"."""
        rank, index = int(self.rank[at]), self.gpu_index[at]
        who = f"rank {rank}" if rank >= 0 else "a rank without a number"
        which = f", GPU {int(index)}" if index == index else ""
        return f"{who} on {self.node[at]}{which}"


def make_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of JobGpus from sequences in which None is not known."""
    kinds: Mapping[str, Any] = {"rank": np.int64, "running": np.bool_}
    names = ("node", "gpu_uuid")
    return {
        name: np.array(list(value), dtype=object if name in names else kinds.get(name, np.float64))
        for name, value in values.items()
    }
