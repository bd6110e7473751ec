"""The GPUs of each gang side by side, each 15 s: a collective that hangs, a GPU that slows its job down.

Read from the store's latest readings; judged by collectors/collective.py and collectors/stragglers.py;
kept as findings of the source `training`. What was open when a worker starts is taken over. Of a job of
which too little is known nothing opens and nothing closes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.settings import Settings
from app.store.engine import read, write
from app.store.writes.bulk import parse_time
from app.store.writes.central import Key, fold_central, open_central
from collectors.central import CentralFinding
from collectors.collective import HangState, adopt_hang, judge_hang
from collectors.health import BUILT_IN, RuleSet
from collectors.job_gpus import JobGpus, make_columns
from collectors.rules_training import HANG, STRAGGLER
from collectors.stragglers import StragglerState, adopt_stragglers, judge_stragglers

SOURCE = "training"

_GPUS = """
SELECT j.uid, j.namespace, j.name, j.wanted_pods, p.uid, p.rank, p.node, p.phase, p.gpus, p.started_at,
       p.deleted_at, g.uuid, g."index", g.observed_at, g.gpu_utilization_ratio, g.power_watts,
       g.power_limit_watts, g.sm_clock_hertz, g.clocks_event_reasons
FROM job AS j
JOIN pod AS p ON p.cluster = j.cluster AND p.job_uid = j.uid
LEFT JOIN gpu AS g ON g.cluster = p.cluster AND g.node = p.node AND g.pod_uid = p.uid
WHERE j.cluster = :cluster AND j.gang AND j.state = 'Running' AND p.phase NOT IN ('Succeeded', 'Failed')
ORDER BY j.uid, p.uid
"""
_EXPLAINED = """
SELECT node, gpu_uuid, xid, severity, changes_health FROM finding
WHERE cluster = :cluster AND closed_at IS NULL AND source <> 'training'
"""


@dataclass(frozen=True)
class _Kept:
    """What is remembered of one job between two looks."""

    hang: HangState = field(default_factory=HangState)
    stragglers: StragglerState = field(default_factory=StragglerState)


class TrainingWatch:
    """Judges the gangs at each tick and keeps what it finds in the store."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings,
        clock: Callable[[], datetime],
        rules: RuleSet = BUILT_IN,
    ) -> None:
        self._engine = engine
        self._cluster = settings.cluster
        self._clock = clock
        by_name = {rule.name: rule for rule in rules.training}
        self._hang, self._straggler = by_name.get(HANG.name), by_name.get(STRAGGLER.name)
        self._turn = Lock()
        self._kept: dict[str, _Kept] | None = None

    def forget(self) -> None:
        """Another worker may have written since: the next tick takes over what the store has open."""
        with self._turn:
            self._kept = None

    def tick(self) -> None:
        """Looks at every gang that runs and writes what follows. Raises StoreError."""
        with self._turn:
            self._look(self._clock())

    def _look(self, now: datetime) -> None:
        with read(self._engine) as connection:
            kept = self._kept
            if kept is None:
                kept = _take_over(connection, self._cluster, now)
            jobs = read_jobs(connection, self._cluster, now)
            explained = _read_explained(connection, self._cluster)
        findings: list[CentralFinding] = []
        unknown: set[Key] = set()
        after: dict[str, _Kept] = {}
        for job in jobs:
            before = kept.get(job.uid, _Kept())
            hang, stragglers, spins = before.hang, before.stragglers, False
            if self._hang is not None:
                told = judge_hang(hang, job, now=now, rule=self._hang, explained=explained)
                hang, spins = told.state, told.spins
                findings += told.findings
                unknown |= told.kept
            if self._straggler is not None:
                slow = judge_stragglers(stragglers, job, now=now, rule=self._straggler, spins=spins)
                stragglers = slow.state
                findings += slow.findings
                unknown |= slow.kept
            after[job.uid] = _Kept(hang, stragglers)
        with write(self._engine) as connection:
            fold_central(connection, self._cluster, SOURCE, findings, now, kept=unknown)
        # Only what is written is remembered: a tick that fails is done again.
        self._kept = after


def read_jobs(connection: Connection, cluster: str, now: datetime) -> list[JobGpus]:
    """The gangs that run, with the latest reading of each of their GPUs."""
    by_job: dict[str, list[Any]] = {}
    for row in connection.execute(text(_GPUS), {"cluster": cluster}):
        by_job.setdefault(row[0], []).append(row)
    return [_job_of(rows, now) for rows in by_job.values()]


def _job_of(rows: list[Any], now: datetime) -> JobGpus:
    uid, namespace, name, wanted = rows[0][:4]
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            *("rank", "node", "gpu_index", "gpu_uuid", "running", "age_seconds"),
            *("utilization_ratio", "power_watts", "power_limit_watts"),
            *("sm_clock_hertz", "reasons"),
        )
    }
    numbers: dict[str, int] = {}
    told: dict[str, int] = {}
    pods: dict[str, Any] = {}
    for row in rows:
        pod_uid = row[4]
        pods[pod_uid] = row
        if row[11] is None:
            continue
        told[pod_uid] = told.get(pod_uid, 0) + 1
        observed_at = parse_time(row[13])
        _add(
            columns,
            row,
            rank=_rank_of(row, numbers),
            gpu=(
                row[12],
                row[11],
                (now - observed_at).total_seconds() if observed_at is not None else None,
                *row[14:19],
            ),
        )
    for pod_uid, row in pods.items():
        # GPUs that the pod asks for and nobody reports: there, and not known.
        for _ in range(row[8] - told.get(pod_uid, 0)):
            _add(columns, row, rank=_rank_of(row, numbers), gpu=(None, "", *[None] * 6))
    starts = [parse_time(row[9]) for row in pods.values()]
    known = [at for at in starts if at is not None]
    return JobGpus(
        uid=uid,
        name=f"{namespace}/{name}",
        ranks=int(wanted or 0),
        running_since=max(known) if len(known) == len(starts) else None,
        **make_columns(columns),
    )


def _add(columns: Mapping[str, list[Any]], row: Any, *, rank: int, gpu: tuple[Any, ...]) -> None:
    is_running = row[7] == "Running" and row[10] is None
    values = (rank, row[6] or "", gpu[0], gpu[1], is_running, *gpu[2:])
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def _rank_of(row: Any, numbers: dict[str, int]) -> int:
    """Its rank; a number below 0 of its own for a pod without one."""
    if row[5] is not None:
        return int(row[5])
    return numbers.setdefault(row[4], -1 - len(numbers))


def _read_explained(connection: Connection, cluster: str) -> frozenset[str]:
    """Nodes with a grave fault of their own, and GPUs with any XID: what hangs for them is theirs."""
    found: set[str] = set()
    for node, uuid, xid, severity, changes_health in connection.execute(
        text(_EXPLAINED), {"cluster": cluster}
    ):
        is_grave = changes_health and severity in ("critical", "fatal")
        if is_grave:
            found.add(node)
        if uuid is not None and (is_grave or xid is not None):
            found.add(uuid)
    return frozenset(found - {""})


def _take_over(connection: Connection, cluster: str, now: datetime) -> dict[str, _Kept]:
    kept: dict[str, _Kept] = {}
    for one in open_central(connection, cluster, SOURCE):
        uid = one.key[3]
        before = kept.get(uid, _Kept())
        if one.key[0] == HANG.name:
            hang = adopt_hang(one.key, one.message, one.opened_at, now=now)
            kept[uid] = _Kept(hang, before.stragglers)
        else:
            stragglers = adopt_stragglers(before.stragglers, one.key, one.opened_at, now=now)
            kept[uid] = _Kept(before.hang, stragglers)
    return kept
