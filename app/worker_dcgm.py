"""The nodes without an agent, told by dcgm-exporter's series in Prometheus.

Which nodes: those of the cluster of which no agent has ever reported (node.reported_by). Once an agent
has, its silence is a fact that must stay visible, and dcgm-exporter's word, which knows less, must not
make such a node Healthy: the node ages into Unknown and stays so until its agent speaks again. An agent
that starts on a node takes it over with its first report; what dcgm-exporter's series had found there
is closed by that (app/store/writes/findings.py).

A Prometheus that does not answer, or answers in part, opens and closes nothing: nothing is stored, and
the nodes fall silent as if their agents had.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, text

from app.settings import Settings
from app.store.engine import read, write
from app.store.frame_buffer import FrameBuffer
from app.store.history import HistoryBuffer
from app.store.writes.bulk import clock as stored_clock
from app.store.writes.bulk import parse_time, select_where_in
from app.store.writes.reports import store_reports
from app.store.writes.streams import DCGM_SPOOLS
from app.worker_sources import SourceBoard, answering_source
from collectors.dcgm_columns import DcgmTable
from collectors.dcgm_desk import DcgmDesk
from collectors.dcgm_reports import compose_reports
from collectors.dcgm_words import Adopted, HostVerdict, NodeWord
from collectors.errors import SourceError
from collectors.health import BUILT_IN, RuleSet
from collectors.ledger import Past
from collectors.prometheus import DcgmSource
from collectors.readings import PodReference
from collectors.recurrence import REMEMBER
from collectors.report import Finding
from collectors.xid import find_entry
from k8s.view import ClusterView

log = structlog.get_logger()

SOURCE = "dcgm"
NODES_AT_ONCE = 500
"""Nodes stored in one transaction, so that other writers wait for fractions of a second."""

_NODES = """
SELECT name, reported_by, boot_id, gpu_count_expected FROM node WHERE cluster = :cluster
"""
_OPEN = """
SELECT f.node, n.boot_id, f.episode, f.rule, f.severity, f.message, f.action, f.opened_at, f.gpu_uuid,
       f.xid, f.changes_health, f.pod_uids
FROM finding AS f LEFT JOIN node AS n ON n.cluster = f.cluster AND n.name = f.node
WHERE f.cluster = :cluster AND f.source = 'dcgm' AND f.closed_at IS NULL
"""
_GPUS = """
SELECT g.node, g.uuid FROM gpu AS g JOIN node AS n ON n.cluster = g.cluster AND n.name = g.node
WHERE g.cluster = :cluster AND n.reported_by = 'dcgm' ORDER BY g.node, g."index"
"""
_ENDED = """
SELECT node, rule, gpu_uuid, xid, COUNT(*), MAX(closed_at) FROM finding
WHERE cluster = :cluster AND source = 'dcgm' AND xid IS NOT NULL AND closed_at >= :since
GROUP BY node, rule, gpu_uuid, xid
"""


class DcgmWatch:
    """Asks Prometheus at each tick and stores what it says of nodes without an agent."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings,
        view: Callable[[], ClusterView],
        board: SourceBoard,
        clock: Callable[[], datetime],
        rules: RuleSet = BUILT_IN,
    ) -> None:
        """Does nothing where the settings name no Prometheus."""
        self._engine = engine
        self._cluster = settings.cluster
        self._silence_seconds = settings.silence_seconds
        self._view = view
        self._board = board
        self._clock = clock
        self._rules = rules
        url = settings.prometheus_url
        self._source = DcgmSource(url) if url is not None else None
        self._forgotten = False
        self._frames = FrameBuffer()
        self._history = HistoryBuffer(settings.cluster)
        self._begin_anew()

    def forget(self) -> None:
        """Forgets what is open: another worker may have gone on with it. The next tick reads the store.

        Returns at once; a poll that is under way then stores nothing.
        """
        self._forgotten = True

    def tick(self) -> None:
        """Asks, judges, stores. Raises StoreError; a Prometheus that fails is told as a source."""
        if self._source is None:
            return
        if self._forgotten:
            self._forgotten = False
            self._begin_anew()
        self._poll(self._source)

    def close(self) -> None:
        """Appends the minutes that are held and closes the connections. Raises StoreError."""
        if self._source is not None:
            self._source.close()
            self._history.flush(self._engine, self._clock(), final=True)

    def _begin_anew(self) -> None:
        self._desk: DcgmDesk | None = None
        # A worker's sequences must not meet those of the one before: the spool is another.
        self._spool_id = f"{DCGM_SPOOLS}{secrets.token_hex(8)}"
        self._sequence = 0

    def _poll(self, source: DcgmSource) -> None:
        view = self._view()
        with read(self._engine) as connection:
            agents, nodes = _read_nodes(connection, self._cluster, view)
            if self._desk is None:
                self._desk = _open_desk(connection, self._cluster, self._rules, self._clock())
        try:
            if not nodes:
                source.check()
                self._say(f"it answers; each of {agents} nodes has an agent")
                return
            table = source.read()
        except SourceError as error:
            self._say(str(error), answers=False)
            return
        if self._forgotten:
            return
        now = self._clock()
        verdicts = self._desk.take(
            table, words=nodes, now=now, silence_seconds=self._silence_seconds
        )
        self._store(table, verdicts, view=view, now=now)
        self._say(word_poll(table, nodes, verdicts))

    def _store(
        self,
        table: DcgmTable,
        verdicts: Mapping[str, HostVerdict],
        *,
        view: ClusterView,
        now: datetime,
    ) -> None:
        self._sequence += 1
        uids = {
            PodReference(pod.metadata.namespace, pod.metadata.name): uid
            for uid, pod in view.pods.items()
        }

        def find_pod(pod: PodReference) -> str | None:
            return uids.get(PodReference(pod.namespace, pod.name))

        waiting = iter(verdicts.items())
        while portion := list(islice(waiting, NODES_AT_ONCE)):
            reports = compose_reports(
                table,
                portion,
                cluster=self._cluster,
                spool_id=self._spool_id,
                sequence=self._sequence,
                now=now,
                find_pod=find_pod,
            )
            with write(self._engine) as connection:
                # An agent may have begun to report while Prometheus was asked.
                taken = _with_agents(connection, self._cluster, [one.node for one in reports])
                stored = store_reports(
                    connection,
                    self._cluster,
                    [one for one in reports if one.node not in taken],
                    self._clock(),
                    silence_seconds=self._silence_seconds,
                    source=SOURCE,
                )
            assert self._desk is not None
            self._desk.close(
                episode for closed in stored.closed_episodes.values() for episode in closed
            )
            self._frames.keep(stored)
            self._history.fold(stored.accepted)
        if self._frames.waits:
            self._frames.flush(self._engine, self._cluster, now)
        if self._history.is_due(now):
            self._history.flush(self._engine, now)

    def _say(self, message: str, *, answers: bool = True) -> None:
        before = self._board.last_ok_at("prometheus")
        self._board.show(
            [
                answering_source(
                    "prometheus", answers, before=before, now=self._clock(), message=message
                )
            ]
        )


def word_poll(
    table: DcgmTable, nodes: Mapping[str, NodeWord], verdicts: Mapping[str, HostVerdict]
) -> str:
    """What a poll saw, in one sentence: GPUs read, nodes without an agent, and what was of no use.

    A host that is no node of the cluster is an exporter that names its pod, or a machine beside it.
    """
    gpus = sum(verdict.gpu_count for verdict in verdicts.values())
    said = f"{gpus} GPUs of {len(verdicts)} nodes read; {len(nodes)} nodes have no agent"
    matched = sum(host in nodes for host in table.places)
    if matched > len(verdicts):
        said += f"; of {matched - len(verdicts)} nodes the samples are too old"
    foreign = len(table.places) - matched
    if foreign:
        said += f"; {foreign} hosts were left to their agents or are no node of the cluster"
    return said


def _read_nodes(
    connection: Connection, cluster: str, view: ClusterView
) -> tuple[int, dict[str, NodeWord]]:
    """How many nodes have an agent, and the others by name."""
    agents = 0
    nodes: dict[str, NodeWord] = {}
    for name, reported_by, boot_id, expected in connection.execute(
        text(_NODES), {"cluster": cluster}
    ):
        if reported_by not in (None, SOURCE):
            agents += 1
            continue
        node = view.nodes.get(name)
        told = node.status.node_info.boot_id if node is not None else ""
        nodes[name] = NodeWord(name, told or boot_id or None, expected or 0)
    return agents, nodes


def _with_agents(connection: Connection, cluster: str, names: Sequence[str]) -> set[str]:
    return {
        name
        for name, reported_by in select_where_in(
            connection,
            "SELECT name, reported_by FROM node WHERE cluster = :cluster AND {name IN (:names)}",
            names,
            cluster=cluster,
        )
        if reported_by not in (None, SOURCE)
    }


def _open_desk(connection: Connection, cluster: str, rules: RuleSet, now: datetime) -> DcgmDesk:
    """A desk that goes on from what is open in the store."""
    desk = DcgmDesk(rules=rules)
    adopted = []
    for row in connection.execute(text(_OPEN), {"cluster": cluster}):
        opened_at = parse_time(row.opened_at)
        assert opened_at is not None
        finding = Finding(
            episode=row.episode,
            rule=row.rule,
            severity=row.severity,
            message=row.message,
            action=row.action,
            since=opened_at,
            gpu_uuid=row.gpu_uuid,
            xid=row.xid,
            changes_health=bool(row.changes_health),
            pod_uids=tuple(row.pod_uids.split(",")) if row.pod_uids else (),
        )
        adopted.append(Adopted(row.node, row.boot_id or "", finding))
    known: dict[str, list[str]] = {}
    for node, uuid in connection.execute(text(_GPUS), {"cluster": cluster}):
        known.setdefault(node, []).append(uuid)
    since = stored_clock(connection)(now - REMEMBER)
    past: dict[str, dict[str, Past]] = {}
    for row in connection.execute(text(_ENDED), {"cluster": cluster, "since": since}):
        if find_entry(row.xid).cleared_by in ("reset", "boot"):
            past.setdefault(row.node, {})[f"{row.rule}/{row.gpu_uuid or 'node'}"] = _past(row)
    desk.adopt(adopted, known=known, past=past)
    if adopted:
        log.info("dcgm-exporter's findings taken up", findings=len(adopted))
    return desk


def _past(row: Any) -> Past:
    last_at = parse_time(row[5])
    assert last_at is not None
    return Past(ended=int(row[4]), last_at=last_at)
