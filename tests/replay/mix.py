"""Llama 3's mix of unexpected interruptions, and how each of its kinds shows on a node.

The counts are those of "The Llama 3 Herd of Models" (54 days, 16,384 H100; shared/facts/reliability.md).
The paper says what failed and not how it showed: the shares within a kind are our judgement, made so
that each way is there that the facts on GPU health know of, and the commonest one leads.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FAULTS_PER_1000_NODE_DAYS = 3.789

Level = Literal["incident", "finding", "none"]
"""What a fault must leave: an incident; a finding that degrades its node and by design is no incident alone
(a warning); nothing, since its kind leaves no signal that any of our sources sees."""

Mechanism = Literal["gpu", "node", "leaf", "power", "crash", "hang", "reboot", "none"]


@dataclass(frozen=True)
class Variant:
    """One way in which a kind shows. `fault` is the simulator's name for it; `needs_seconds` the time that
    its rule needs by its own definition (hold times, windows), before which nothing can be said."""

    fault: str
    share: int
    mechanism: Mechanism = "gpu"
    level: Level = "incident"
    needs_seconds: float = 0.0
    kills_job: bool = True


@dataclass(frozen=True)
class Kind:
    """One row of Llama 3's table."""

    name: str
    count: int
    variants: Sequence[Variant]


def _warning(fault: str, share: int, needs_seconds: float = 0.0) -> Variant:
    return Variant(fault, share, level="finding", needs_seconds=needs_seconds, kills_job=False)


PORT_HOLD = 240.0
MINUTES_OF_TEN = 360.0

KINDS: tuple[Kind, ...] = (
    # Falling off the bus is what an H100 does most; with and without a line of the driver's.
    Kind(
        "faulty GPU",
        148,
        (
            Variant("xid-79", 40),
            Variant("gpu-lost", 12),
            Variant("gpu-count", 10),
            Variant("xid-48", 14),
            Variant("xid-95", 10),
            Variant("xid-74", 14),
            Variant("nvlink-down", 8, needs_seconds=15.0),
            Variant("nvlink-crc", 4),
            Variant("fabric-failed", 4),
            Variant("gpu-reset-required", 6),
            Variant("gpu-unreadable", 4),
            Variant("xid-62", 4),
            Variant("xid-109", 4),
            Variant("xid-46", 3),
            Variant("xid-143", 3),
            Variant("xid-136", 2),
            Variant("recovery-reset", 2, needs_seconds=10.0),
            _warning("pcie-width-low", 2),
            _warning("pcie-replay", 2),
        ),
    ),
    # Contained errors lead: the driver takes the page away and kills the process that used it.
    Kind(
        "HBM3 memory",
        72,
        (
            Variant("xid-94", 24),
            Variant("xid-95", 16),
            Variant("xid-48", 8),
            Variant("xid-64", 6),
            Variant("remap-failure", 4),
            Variant("remapped-rows", 2),
            Variant("xid-140", 2),
            _warning("xid-63", 6),
            _warning("remap-pending", 3),
            _warning("remap-bank-empty", 1),
        ),
    ),
    # An uncorrectable error in SRAM: the count rises, a line may be there or not.
    Kind(
        "SRAM", 19, (Variant("ecc-uncorrectable", 10), Variant("xid-95", 5), Variant("xid-48", 4))
    ),
    Kind("GSP", 17, (Variant("xid-119", 13), Variant("xid-120", 4))),
    Kind("silent data corruption", 6, (Variant("none", 6, "none", "none"),)),
    Kind(
        "thermal or sensor",
        6,
        (
            Variant("temperature-margin-gone", 2, needs_seconds=10.0, kills_job=False),
            Variant("slowdown-thermal", 2, needs_seconds=MINUTES_OF_TEN, kills_job=False),
            Variant("slowdown-hardware", 1, needs_seconds=MINUTES_OF_TEN, kills_job=False),
            _warning("slowdown-software-thermal", 1, 60.0),
        ),
    ),
    # A rank ends with an exit code; half of them after an XID of the application's class.
    Kind(
        "software bug",
        54,
        (
            Variant("exit code", 27, "crash", needs_seconds=10.0),
            Variant("exit code after XID 31", 20, "crash"),
            Variant("exit code after XID 13 storm", 7, "crash"),
        ),
    ),
    Kind("dependency", 2, (Variant("none", 2, "none", "none"),)),
    # Cables and transceivers fail far more often than whole switches.
    Kind(
        "switch or cable",
        35,
        (
            Variant("infiniband-port-down", 22, "node", needs_seconds=PORT_HOLD),
            Variant("infiniband-port-flaps", 5, "node", "finding", 120.0, kills_job=False),
            Variant("leaf down", 8, "leaf", needs_seconds=PORT_HOLD),
        ),
    ),
    # Unexpected: the node is gone, or only its kubelet is, or the kernel hangs.
    Kind(
        "host maintenance",
        32,
        (
            Variant("node-dead", 18, "node", needs_seconds=45.0),
            Variant("unexpected reboot", 6, "reboot", needs_seconds=45.0),
            Variant("kubelet-dead", 5, "node", needs_seconds=50.0, kills_job=False),
            Variant("node-problem-kernel-deadlock", 3, "node"),
        ),
    ),
    Kind("NIC", 7, (Variant("infiniband-port-down", 7, "node", needs_seconds=PORT_HOLD),)),
    Kind("SSD", 3, (Variant("node-problem-readonly-filesystem", 3, "node"),)),
    Kind(
        "power supply",
        3,
        (
            Variant("node-dead", 2, "node", needs_seconds=45.0),
            Variant("power domain dead", 1, "power", needs_seconds=45.0),
        ),
    ),
    Kind("chassis", 2, (Variant("node-dead", 2, "node", needs_seconds=45.0),)),
    Kind("IO board", 2, (_warning("pcie-width-low", 1), _warning("pcie-generation-low", 1))),
    Kind(
        "CPU",
        2,
        (
            Variant("node-dead", 1, "node", needs_seconds=45.0),
            Variant("node-problem-kernel-deadlock", 1, "node"),
        ),
    ),
    # An uncorrectable error of the host's memory ends in a machine check, and that in a reboot.
    Kind("system memory", 2, (Variant("unexpected reboot", 2, "reboot", needs_seconds=45.0),)),
    Kind("NCCL watchdog", 7, (Variant("collective-hang", 7, "hang", needs_seconds=60.0),)),
)

COUNTED = sum(kind.count for kind in KINDS)

NOISE_PER_1000_NODE_DAYS: Mapping[str, float] = {
    "application XIDs": 8.0,
    "planned reboot": 3.0,
    "driver upgrade": 2.0,
    "node added": 0.6,
    "PCIe replays creep": 2.0,
    "correctable ECC": 3.0,
    "short thermal slowdown": 3.0,
    "late, repeated reports": 4.0,
    "agent restarted": 4.0,
    "kubelet late": 4.0,
    "clock steps": 2.0,
}
"""Benign events of single nodes. Judgement: an order of magnitude more than the faults."""

SITE_NOISE_PER_DAY: Mapping[str, float] = {
    "ingest restarted": 0.6,
    "ingest away": 0.15,
    "worker restarted": 0.6,
}
"""Of the whole site: a restart of seconds, an absence of a minute and a half, another worker takes over."""


@dataclass(frozen=True)
class Planned:
    """Something to happen, `at` seconds from the start."""

    at: float
    kind: str
    variant: Variant | None = None


def draw_faults(
    rng: random.Random, *, nodes: int, seconds: float, rate: float = FAULTS_PER_1000_NODE_DAYS
) -> list[Planned]:
    """Poisson times at `rate` per 1,000 node-days, kinds by their counts, variants by their shares."""
    found = []
    weights = [kind.count for kind in KINDS]
    for at in _poisson(rng, rate * nodes / 1000 / 86_400, seconds):
        (kind,) = rng.choices(KINDS, weights)
        (variant,) = rng.choices(kind.variants, [one.share for one in kind.variants])
        found.append(Planned(at, kind.name, variant))
    return found


def draw_each_once(
    rng: random.Random, *, seconds: float, gpu_variants: int | None = None
) -> list[Planned]:
    """Each variant of each kind once, at even distances, in a random order.

    gpu_variants: of a single GPU's faults only so many a kind, the commonest first.
    """
    pairs = []
    for kind in KINDS:
        of_gpus = [one for one in kind.variants if one.mechanism == "gpu"][:gpu_variants]
        others = [one for one in kind.variants if one.mechanism != "gpu"]
        pairs += [(kind.name, variant) for variant in (*of_gpus, *others)]
    rng.shuffle(pairs)
    step = seconds / (len(pairs) + 1)
    return [
        Planned(step * (place + rng.random()), name, variant)
        for place, (name, variant) in enumerate(pairs)
    ]


def draw_noise(
    rng: random.Random, *, nodes: int, seconds: float, factor: float = 1.0
) -> list[Planned]:
    """Benign events at Poisson times."""
    found = [
        Planned(at, kind)
        for kind, rate in NOISE_PER_1000_NODE_DAYS.items()
        for at in _poisson(rng, factor * rate * nodes / 1000 / 86_400, seconds)
    ]
    found += [
        Planned(at, kind)
        for kind, rate in SITE_NOISE_PER_DAY.items()
        for at in _poisson(rng, factor * rate / 86_400, seconds)
    ]
    return sorted(found, key=lambda one: one.at)


def _poisson(rng: random.Random, rate_per_second: float, seconds: float) -> Iterator[float]:
    at = rng.expovariate(rate_per_second)
    while at < seconds:
        yield at
        at += rng.expovariate(rate_per_second)
