"""What Kubernetes says is wrong, as findings: conditions, taints, disagreements, interrupted gangs.

Judged by the active worker from its view of the cluster; the rules are those of collectors/
rules_kubernetes.py. While Kubernetes is not heard nothing opens or closes. What is open in the store
when a worker starts is taken over, so that it stays one episode.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import chain
from threading import Lock
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from app.settings import Settings
from app.store.engine import read, write
from app.store.writes.central import fold_central, open_central
from app.store.writes.kubernetes_words import held_jobs, store_words
from app.worker_sources import BLIND_SECONDS
from collectors.health import BUILT_IN, RuleSet, read_node
from collectors.job_interruptions import (
    Interruptions,
    adopt_jobs,
    has_ended_ranks,
    job_rows,
    look_at_jobs,
)
from collectors.kubernetes import is_gpu_node
from collectors.node_conditions import NO_WORD, StoreWord, condition_rows, disagreement_facts
from collectors.row_judgement import (
    Judged,
    Judgement,
    Row,
    Standing,
    adopt,
    judge_rows,
    try_rules,
)
from collectors.rules_kubernetes import JOB_INTERRUPTED
from k8s.objects import Node
from k8s.view import ClusterView, ClusterWatcher

log = structlog.get_logger()

SOURCE = "kubernetes"

WORDS_SECONDS = 5.0
"""How often the store's word on nodes is read: agents report each 15 s, and a hold time is 10 s."""

REFOLD_SECONDS = 30.0
"""Findings are told again after so long, should somebody else have closed one that still holds."""


class Look(NamedTuple):
    """A node as it was last looked at, and what came of it."""

    node: Node
    word: StoreWord
    judged: tuple[Judged, ...]


class KubernetesFindings:
    """Judges the view and keeps the findings of Kubernetes in the store as it says."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings,
        watcher: ClusterWatcher,
        clock: Callable[[], datetime],
        rules: RuleSet = BUILT_IN,
    ) -> None:
        self._engine = engine
        self._cluster = settings.cluster
        self._watcher = watcher
        self._clock = clock
        self._rules = {rule.name: rule for rule in rules.kubernetes}
        by_scope = {
            scope: [rule for rule in rules.kubernetes if rule.scope == scope]
            for scope in ("condition", "node", "job")
        }
        self._by_field = {rule.conditions[0].field: rule for rule in by_scope["condition"]}
        self._node_rules, self._job_rules = by_scope["node"], by_scope["job"]
        self._turn = Lock()
        self._begin_anew()

    def forget(self) -> None:
        """Another worker may have written since: the next tick takes over what the store has open."""
        with self._turn:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._standing: Standing | None = None
        self._jobs = Interruptions()
        self._looks: dict[str, Look] = {}
        self._words: Mapping[str, StoreWord] = {}
        self._words_at: datetime | None = None
        self._seen: ClusterView | None = None
        self._due_at: datetime | None = None
        self._told: object = None
        self._told_at: datetime | None = None

    def tick(self) -> None:
        """Judges what has changed and writes what follows. Raises StoreError."""
        view, now = self._watcher.view(), self._clock()
        if not is_heard(view, now):
            return
        with self._turn:
            self._judge(view, now)

    def _judge(self, view: ClusterView, now: datetime) -> None:
        moved = self._read_words(now)
        due = self._due_at is not None and now >= self._due_at
        if not moved and not due and self._seen is not None and view.version == self._seen.version:
            return
        standing = self._standing
        if standing is None:
            with read(self._engine) as connection:
                standing = self._take_over(connection, now)
        seen = self._seen
        self._seen = None  # until what follows from this view is written
        if moved or seen is None or view.nodes is not seen.nodes:
            self._look_at_nodes(view)
        jobs = self._jobs
        if due or seen is None or view.pods is not seen.pods or view.jobs is not seen.jobs:
            jobs = self._look_at_jobs(view, now)
        judged = chain.from_iterable(look.judged for look in self._looks.values() if look.judged)
        rows = (one for row in job_rows(jobs) for one in try_rules(self._job_rules, row))
        judgement = judge_rows(standing, chain(judged, rows), self._rules, now=now)
        self._write(judgement, now)
        self._standing, self._jobs, self._seen = judgement.standing, jobs, view
        again = self._told_at + timedelta(seconds=REFOLD_SECONDS) if self._told_at else None
        times = [judgement.due_at, jobs.due_at, again if judgement.standing.open else None]
        self._due_at = min((at for at in times if at is not None), default=None)

    def _read_words(self, now: datetime) -> bool:
        """Reads the store's word where that is due; True when it is another."""
        at = self._words_at
        if at is not None and timedelta() <= now - at < timedelta(seconds=WORDS_SECONDS):
            return False
        with read(self._engine) as connection:
            words = store_words(connection, self._cluster)
        self._words_at = now
        if words == self._words:
            return False
        self._words = words
        return True

    def _take_over(self, connection: Connection, now: datetime) -> Standing:
        opened = open_central(connection, self._cluster, SOURCE)
        self._jobs = adopt_jobs(
            (one.key[3], one.key[1], one.seen_at) for one in opened if one.key[0] == JOB_INTERRUPTED
        )
        return adopt((one.key for one in opened), now=now)

    def _look_at_nodes(self, view: ClusterView) -> None:
        """Looks anew at the nodes that changed, or of which the store says something else."""
        looks: dict[str, Look] = {}
        known, words = self._looks, self._words
        for name, node in view.nodes.items():
            word = words.get(name, NO_WORD)
            look = known.get(name)
            if look is None or look.node is not node or look.word != word:
                if not is_gpu_node(node):
                    continue
                look = Look(node, word, self._try_node(node, word))
            looks[name] = look
        self._looks = looks

    def _try_node(self, node: Node, word: StoreWord) -> tuple[Judged, ...]:
        judged: list[Judged] = []
        for row in condition_rows(node, planned=word.planned):
            rule = self._by_field.get(next(iter(row.values)))
            if rule is not None:
                judged += try_rules((rule,), row)
        facts = disagreement_facts(node, word)
        said = read_node(facts)
        name = node.metadata.name
        for rule in self._node_rules:
            held = rule.test(said)
            if held is not False:
                row = Row(node=name, subject="", values=_fields(rule.fields, facts))
                judged.append(Judged(rule, row, held is True))
        return tuple(judged)

    def _look_at_jobs(self, view: ClusterView, now: datetime) -> Interruptions:
        operations = {}
        if has_ended_ranks(view):
            with read(self._engine) as connection:
                operations = held_jobs(connection, self._cluster, now)
        return look_at_jobs(self._jobs, view, operations=operations, now=now)

    def _write(self, judgement: Judgement, now: datetime) -> None:
        told = (
            {(one.key, one.severity, one.message) for one in judgement.findings},
            judgement.kept,
        )
        at = self._told_at
        fresh = at is not None and timedelta() <= now - at < timedelta(seconds=REFOLD_SECONDS)
        if told == self._told and (fresh or not judgement.standing.open):
            return
        with write(self._engine) as connection:
            changes = fold_central(
                connection,
                self._cluster,
                SOURCE,
                judgement.findings,
                now,
                kept=judgement.kept,
            )
        self._told, self._told_at = told, now
        if changes.opened or changes.closed:
            log.info(
                "findings of Kubernetes changed",
                opened=len(changes.opened),
                closed=len(changes.closed),
                nodes=changes.nodes[:20],
            )


def is_heard(view: ClusterView, now: datetime) -> bool:
    """Whether the view is whole and not old: on what nobody says, nothing is judged."""
    heard_at = view.observed_at
    return (
        view.synced and heard_at is not None and now - heard_at <= timedelta(seconds=BLIND_SECONDS)
    )


def _fields(names: Iterable[str], facts: object) -> dict[str, object]:
    return {name: getattr(facts, name) for name in names}
