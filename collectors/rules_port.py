"""The rules over one InfiniBand port."""

from __future__ import annotations

from collectors.conditions import Condition
from collectors.rule import Rule

MIN_DOWN_SECONDS = 25.0
"""Down for less than this is not counted as a flap (gpud)."""

FULL_COUNTER = 255
"""link_downed is a counter of 8 bits that stops at its end (InfiniBand specification, PortCounters)."""

PORT_RULES: tuple[Rule, ...] = (
    Rule(
        name="infiniband-port-down",
        scope="port",
        severity="critical",
        conditions=(Condition("is_down", "==", True),),
        message="InfiniBand port {name} is down: state {state}.",
        action="Drain the node; check the cable, the switch port and the adapter.",
        source="a port that was up is down for 4 minutes: critical",
        fires={"name": "mlx5_0-1", "is_down": True, "state": "DOWN"},
        quiet={"name": "mlx5_0-1", "is_down": False, "state": "ACTIVE"},
        hold_seconds=240.0,
    ),
    Rule(
        name="infiniband-port-flaps",
        scope="port",
        severity="warning",
        conditions=(Condition("returns", ">=", 3, knob="returns"),),
        message="InfiniBand port {name} went down and came back {returns} times in 12 hours.",
        action="Reseat or replace the cable and its transceivers, then close this finding.",
        source="3 returns after at least 25 s down: warning, until a person closes it",
        fires={"name": "mlx5_0-1", "returns": 3},
        quiet={"name": "mlx5_0-1", "returns": 2},
        sticky=True,
    ),
    Rule(
        name="infiniband-counter-full",
        scope="port",
        severity="advice",
        conditions=(Condition("link_downed_total", ">=", FULL_COUNTER),),
        message="InfiniBand port {name} has counted >= {link_downed_total} flaps, rate unknown: "
        "the counter is full.",
        action="Clear the port's counters (perfquery -R), so that new flaps can be counted.",
        source="an 8-bit counter that has reached its end",
        fires={"name": "mlx5_1-1", "link_downed_total": 255},
        quiet={"name": "mlx5_1-1", "link_downed_total": 254},
    ),
)
