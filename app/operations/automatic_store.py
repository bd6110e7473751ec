"""What automatic mode reads of the store, and what it writes of itself. Inside the caller's transaction."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, text, update

from app.operations.automatic import (
    ASKED,
    ENDED,
    LEFT,
    MOST_NODES,
    WAITING,
    Ask,
    Left,
    NodeState,
    OpenFinding,
    Row,
)
from app.store.reads.rows import table_of
from app.store.tables import (
    AutomaticAction,
    Finding,
    Incident,
    Node,
    Operation,
    OperationNode,
    SourceStatus,
)

NEEDED = ("agents", "kubernetes")
"""Sources without which nothing is done by itself: what the nodes say, and who is on them."""

_action, _finding, _node = table_of(AutomaticAction), table_of(Finding), table_of(Node)
_operation, _held = table_of(Operation), table_of(OperationNode)
_source, _incident = table_of(SourceStatus), table_of(Incident)

_JOBS = """
SELECT DISTINCT p.node, p.job_uid FROM pod AS p JOIN job AS j ON j.cluster = p.cluster AND j.uid = p.job_uid
WHERE p.cluster = :cluster AND p.node IN :nodes AND p.phase NOT IN ('Succeeded', 'Failed')
  AND j.state NOT IN ('Complete', 'Failed', 'Removed')
ORDER BY p.node, p.job_uid
"""


def read_findings(connection: Connection, cluster: str) -> list[OpenFinding]:
    """The findings that are open on nodes; those of a job alone have no node to take."""
    rows = connection.execute(
        select(
            _finding.c.episode,
            _finding.c.node,
            _finding.c.rule,
            _finding.c.severity,
            _finding.c.opened_at,
        ).where(
            _finding.c.cluster == cluster, _finding.c.closed_at.is_(None), _finding.c.node != ""
        )
    )
    return [OpenFinding(*row) for row in rows]


def read_node_states(
    connection: Connection,
    cluster: str,
    names: Iterable[str],
    *,
    silence_seconds: float,
    now: datetime,
) -> dict[str, NodeState]:
    """Those of the nodes that Kubernetes has. heard: not Unknown, and its reports are fresh."""
    wanted = sorted(set(names))
    rows = connection.execute(
        select(
            _node.c.name,
            _node.c.block,
            _node.c.health,
            _node.c.service,
            _node.c.unschedulable,
            _node.c.operation_id,
            _node.c.observed_at,
        ).where(
            _node.c.cluster == cluster,
            _node.c.name.in_(wanted),
            _node.c.kubernetes_ready.is_not(None),
        )
    ).all()
    uncordoned = _uncordoned(connection, cluster, wanted)
    jobs: dict[str, list[str]] = {}
    asked = text(_JOBS).bindparams(bindparam("nodes", expanding=True))
    for node, job in connection.execute(asked, {"cluster": cluster, "nodes": wanted or [""]}):
        jobs.setdefault(str(node), []).append(str(job))
    oldest = now - timedelta(seconds=silence_seconds)
    return {
        row.name: NodeState(
            block=row.block or "",
            heard=row.health != "Unknown"
            and row.observed_at is not None
            and row.observed_at >= oldest,
            service=row.service,
            unschedulable=bool(row.unschedulable),
            operation_id=row.operation_id,
            uncordoned_at=uncordoned.get(row.name),
            jobs=tuple(jobs.get(row.name, ())),
        )
        for row in rows
    }


def _uncordoned(connection: Connection, cluster: str, names: list[str]) -> dict[str, datetime]:
    """When a person last asked for each node to be in service."""
    rows = connection.execute(
        select(_held.c.node, _operation.c.created_at)
        .join(_operation, _operation.c.id == _held.c.operation_id)
        .where(
            _held.c.cluster == cluster,
            _held.c.node.in_(names),
            _operation.c.kind == "uncordon",
        )
        .order_by(_operation.c.created_at)
    )
    return {row.node: row.created_at for row in rows}


def read_rows(connection: Connection, cluster: str) -> dict[tuple[str, str], Row]:
    """What is remembered, of findings that are open and of those that were not done with when they closed."""
    rows = connection.execute(
        select(
            _action.c.rule,
            _action.c.episode,
            _action.c.state,
            _action.c.reason,
            _action.c.world,
            _action.c.together,
            _action.c.updated_at,
        )
        .join(
            _finding,
            (_finding.c.cluster == _action.c.cluster) & (_finding.c.episode == _action.c.episode),
        )
        .where(_action.c.cluster == cluster, _finding.c.closed_at.is_(None))
    )
    return {
        (row.rule, row.episode): Row(row.state, row.reason, row.world, row.together, row.updated_at)
        for row in rows
    }


def blind_source(
    connection: Connection, cluster: str, *, silence_seconds: float, now: datetime
) -> str:
    """Which source that is needed is not heard, in words; "" where all are."""
    rows = {
        row.source: row
        for row in connection.execute(
            select(_source.c.source, _source.c.state, _source.c.updated_at).where(
                _source.c.cluster == cluster, _source.c.source.in_(NEEDED)
            )
        )
    }
    for name in NEEDED:
        row = rows.get(name)
        if (
            row is None
            or row.state == "blind"
            or (now - row.updated_at).total_seconds() > silence_seconds
        ):
            return f"The source {name} is not heard, so nothing is done automatically."
    pipeline = connection.execute(
        select(_incident.c.title).where(
            _incident.c.cluster == cluster,
            _incident.c.scope == "pipeline",
            _incident.c.resolved_at.is_(None),
        )
    ).first()
    return (
        f"The pipeline itself has an incident ({pipeline.title})." if pipeline is not None else ""
    )


def write_asked(
    connection: Connection,
    cluster: str,
    ask: Ask,
    *,
    rules: Mapping[str, str],
    request_id: str,
    rows: Mapping[tuple[str, str], Row],
    now: datetime,
) -> None:
    """Remembers that it was asked for. rules: the health rule's name of each episode."""
    for episode, node in ask.subjects:
        values: dict[str, Any] = {
            "state": ASKED,
            "reason": "",
            "request_id": request_id,
            "world": "",
            "updated_at": now,
        }
        _put(
            connection,
            cluster,
            ask.rule,
            episode,
            values,
            node=node,
            finding=rules[episode],
            rows=rows,
            now=now,
        )


def write_left(
    connection: Connection,
    cluster: str,
    left: Left,
    *,
    finding: str,
    rows: Mapping[tuple[str, str], Row],
    now: datetime,
) -> None:
    """Remembers why it is left alone."""
    values = {"state": LEFT, "reason": left.reason, "updated_at": now}
    _put(
        connection,
        cluster,
        left.rule,
        left.episode,
        values,
        node=left.node,
        finding=finding,
        rows=rows,
        now=now,
    )


def _put(
    connection: Connection,
    cluster: str,
    rule: Any,
    episode: str,
    values: dict[str, Any],
    *,
    node: str,
    finding: str,
    rows: Mapping[tuple[str, str], Row],
    now: datetime,
) -> None:
    key = {"cluster": cluster, "rule": rule.name, "episode": episode}
    if (rule.name, episode) in rows:
        connection.execute(
            update(_action)
            .where(*(_action.c[name] == value for name, value in key.items()))
            .values(**values)
        )
        return
    plain = {"together": MOST_NODES, "world": "", "decided_at": now}
    connection.execute(
        insert(_action).values(
            **{**key, **plain, **values},
            node=node,
            finding=finding,
            action=rule.action,
            acts=rule.acts,
        )
    )


def asked_for(connection: Connection, cluster: str) -> dict[str, int]:
    """Requests whose answer is waited for, with how many nodes each is about."""
    counts: dict[str, int] = {}
    for (request_id,) in connection.execute(
        select(_action.c.request_id).where(_action.c.cluster == cluster, _action.c.state == ASKED)
    ):
        counts[str(request_id)] = counts.get(str(request_id), 0) + 1
    return counts


def settle(connection: Connection, cluster: str, request_id: str, **values: Any) -> None:
    """What became of a request, on each of its rows."""
    connection.execute(
        update(_action)
        .where(
            _action.c.cluster == cluster,
            _action.c.request_id == request_id,
            _action.c.state == ASKED,
        )
        .values(**values)
    )


def end_closed(connection: Connection, cluster: str, now: datetime) -> int:
    """Ends what was not done when its finding closed; gives how many."""
    closed = select(_finding.c.episode).where(
        _finding.c.cluster == cluster, _finding.c.closed_at.is_not(None)
    )
    return connection.execute(
        update(_action)
        .where(
            _action.c.cluster == cluster,
            _action.c.state.in_((WAITING, LEFT)),
            _action.c.episode.in_(closed),
        )
        .values(state=ENDED, reason="The finding ended before anything was done.", updated_at=now)
    ).rowcount
