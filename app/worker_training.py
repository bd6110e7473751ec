"""The GPUs of each gang side by side, each 15 s: a collective that hangs, a GPU that slows its job down.

Read from the store's latest readings; judged by collectors/collective.py and collectors/stragglers.py;
kept as findings of the source `training`. What was open when a worker starts is taken over. Of a job of
which too little is known nothing opens and nothing closes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
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

# A gang that lacks one pod is Pending: its others may wait for that one.
_GPUS = """
SELECT j.uid, j.namespace, j.name, j.wanted_pods, p.uid, p.rank, p.node, p.phase, p.gpus, p.started_at,
       p.deleted_at, g.uuid, g."index", g.observed_at, g.gpu_utilization_ratio, g.power_watts,
       COALESCE(g.power_limit_watts, CASE WHEN g.name = :name THEN 700.0 END),
       g.sm_clock_hertz, g.clocks_event_reasons
FROM job AS j
JOIN pod AS p ON p.cluster = j.cluster AND p.job_uid = j.uid
LEFT JOIN gpu AS g ON g.cluster = p.cluster AND g.node = p.node AND g.pod_uid = p.uid
WHERE j.cluster = :cluster AND j.gang AND j.state IN ('Running', 'Pending') AND j.running_pods > 0
  AND p.phase NOT IN ('Succeeded', 'Failed') AND p.gpus > 0
ORDER BY j.uid, p.uid
"""
_READINGS = (
    *("utilization_ratio", "power_watts", "power_limit_watts"),
    *("sm_clock_hertz", "reasons"),
)
H100_SXM = "NVIDIA H100 80GB HBM3"
"""As NVML and DCGM name it: its limit is 700 W where nobody reads that (facts/gpu-health.md)."""

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
        self._open: set[Key] | None = None

    def forget(self) -> None:
        """Another worker may have written since: the next tick takes over what the store has open."""
        with self._turn:
            self._kept = self._open = None

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
        if findings or self._open is None or self._open - unknown:
            with write(self._engine) as connection:
                fold_central(connection, self._cluster, SOURCE, findings, now, kept=unknown)
        self._open = {one.key for one in findings} | unknown
        # Only what is written is remembered: a tick that fails is done again.
        self._kept = after


def read_jobs(connection: Connection, cluster: str, now: datetime) -> list[JobGpus]:
    """The gangs that run, with the latest reading of each of their GPUs."""
    found = connection.execute(text(_GPUS), {"cluster": cluster, "name": H100_SXM})
    rows = found.cursor.fetchall()  # type: ignore[union-attr] # plain tuples: rows of 16,384 GPUs
    return [_job_of(list(own), now) for _, own in groupby(rows, key=itemgetter(0))]


def _job_of(rows: list[tuple[Any, ...]], now: datetime) -> JobGpus:
    uid, namespace, name, wanted = rows[0][:4]
    pods = {row[4]: row for row in rows}
    told = Counter(row[4] for row in rows if row[11] is not None)
    # GPUs that a pod asks for and nobody reports: there, and not known.
    absent = [
        (*row[:11], "", *[None] * 7)
        for row in pods.values()
        for _ in range(row[8] - told.get(row[4], 0))
    ]
    numbers = {
        pod: -1 - place if row[5] is None else row[5]
        for place, (pod, row) in enumerate(pods.items())
    }
    runs = {pod: row[7] == "Running" and row[10] is None for pod, row in pods.items()}
    columns = list(zip(*(row for row in (*rows, *absent) if row[11] is not None), strict=True))
    pod_uids, uuids, index, observed_at = columns[4], columns[11], columns[12], columns[13]
    starts = [row[9] for row in pods.values() if row[7] == "Running" and row[9] is not None]
    return JobGpus(
        uid=uid,
        name=f"{namespace}/{name}",
        ranks=int(wanted or 0),
        running_since=parse_time(max(starts)) if starts else None,
        **make_columns(
            {
                "rank": [numbers[pod] for pod in pod_uids],
                "node": [node or "" for node in columns[6]],
                "gpu_index": index,
                "gpu_uuid": uuids,
                "running": [runs[pod] for pod in pod_uids],
                "age_seconds": _ages(observed_at, now),
                **dict(zip(_READINGS, columns[14:], strict=True)),
            }
        ),
    )


def _ages(observed_at: Sequence[Any], now: datetime) -> list[float | None]:
    """Seconds since each reading; those of a node were taken at one time."""
    known: dict[Any, float | None] = {None: None}
    for told in set(observed_at) - {None}:
        at = parse_time(told)
        known[told] = (now - at).total_seconds() if at is not None else None
    return [known[told] for told in observed_at]


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
