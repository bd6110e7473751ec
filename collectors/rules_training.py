"""The rules over the GPUs of one job side by side (collectors/collective.py, collectors/stragglers.py)."""

from __future__ import annotations

from collectors.conditions import Condition
from collectors.rule import Rule

MINUTE = 60.0

HANG = Rule(
    name="collective-hang",
    scope="job",
    severity="critical",
    conditions=(
        Condition("peer_utilization_ratio", ">=", 0.95, knob="utilization_ratio"),
        Condition("peer_power_ratio", "<=", 0.45, knob="power_ratio"),
        Condition("has_few_suspects", "==", True),
    ),
    message="{job} hangs in a collective: {spinning} of its {gpus} GPUs are busy with {peer_watts} W "
    "(they wait for a peer), {suspect}.",
    action="Read the suspect rank's stack and log (py-spy, the NCCL flight recorder), then restart "
    "the job from its checkpoint.",
    source="judgement: an H100 that waits for a peer is busy with 150 to 300 of its 700 W",
    fires={
        "peer_utilization_ratio": 1.0,
        "peer_power_ratio": 0.31,
        "has_few_suspects": True,
        "job": "ml/llama",
        "spinning": 511,
        "gpus": 512,
        "peer_watts": 217,
        "suspect": "and rank 17 on h100-b01-r2-n3, GPU 3, does nothing",
    },
    quiet={
        "peer_utilization_ratio": 0.99,
        "peer_power_ratio": 0.88,
        "has_few_suspects": True,
        "job": "ml/llama",
        "spinning": 0,
        "gpus": 512,
        "peer_watts": 616,
        "suspect": "",
    },
    changes_health=False,
    hold_seconds=MINUTE,
    keep_firing_seconds=30.0,
)

STRAGGLER = Rule(
    name="straggler",
    scope="job",
    severity="warning",
    conditions=(Condition("signs", ">", 0),),
    message="{place} is apart from its peers in {job}: {figures}.",
    action="Look at the GPU's clocks, throttling and temperature; if it stays apart, drain the node "
    "and run its diagnostics.",
    source="judgement: clock under 0.9 of the job's median, or throttled and 3 % under it, or power "
    "under 0.75 of it and 6 robust deviations away",
    fires={
        "signs": 1,
        "place": "rank 17 on h100-b01-r2-n3, GPU 3,",
        "job": "ml/llama",
        "figures": "SM clock 990 MHz, its 63 peers 1,980 MHz",
    },
    quiet={"signs": 0, "place": "", "job": "ml/llama", "figures": ""},
    changes_health=False,
    hold_seconds=3 * MINUTE,
    keep_firing_seconds=MINUTE,
)

TRAINING_RULES: tuple[Rule, ...] = (HANG, STRAGGLER)
