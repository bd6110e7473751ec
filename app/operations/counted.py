"""What is counted when a wish is judged: facts of nodes, nodes that are held, GPUs reserved, limits.

Inside the caller's transaction, which is the writing one when something is accepted.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, or_, select

from app.limits import RATE_WINDOW_SECONDS, Limits, LimitSettings, is_gpu_node, judge_limits
from app.operations.model import NodeFacts, Wish
from app.operations.modes import COMPLETE
from app.operations.topology_aware import topology_lines
from app.operations.trips import counted_from
from app.settings import Settings
from app.store.reads.rows import table_of
from app.store.tables import Node, OperationNode, Reservation
from app.store.tables import Operation as OperationTable
from k8s.objects import gpu_request, is_terminal
from k8s.view import ClusterView

_node = table_of(Node)
_held = table_of(OperationNode)
_operation = table_of(OperationTable)
_reservation = table_of(Reservation)


def read_facts(
    connection: Connection, cluster: str, names: Iterable[str] | None = None
) -> dict[str, NodeFacts]:
    """What the store says of nodes, and of every one that is Failing or on Probation; of all of them without
    names."""
    statement = select(
        _node.c.name, _node.c.block, _node.c.rack, _node.c.health, _node.c.service
    ).where(_node.c.cluster == cluster)
    if names is not None:
        statement = statement.where(
            or_(
                _node.c.name.in_(list(names)),
                _node.c.health == "Failing",
                _node.c.service == "Probation",
            )
        )
    return {
        row.name: NodeFacts(row.block, row.rack, row.health, row.service)
        for row in connection.execute(statement)
    }


def held_nodes(connection: Connection, cluster: str) -> dict[str, str]:
    """Nodes that an open operation holds, and which."""
    rows = connection.execute(
        select(_held.c.node, _held.c.operation_id).where(_held.c.cluster == cluster, _held.c.open)
    )
    return {row.node: row.operation_id for row in rows}


def read_reserved(connection: Connection, cluster: str, view: ClusterView) -> dict[str, int]:
    """GPUs by node that open operations still count on, beyond what their own jobs use there now."""
    reserved: dict[tuple[str, str], int] = {}
    for row in connection.execute(
        select(_reservation.c.operation_id, _reservation.c.node, _reservation.c.gpus).where(
            _reservation.c.cluster == cluster, _reservation.c.released_at.is_(None)
        )
    ):
        reserved[(row.operation_id, row.node)] = row.gpus
    if not reserved:
        return {}
    plans = connection.execute(
        select(_operation.c.id, _operation.c.plan).where(
            _operation.c.id.in_({operation_id for operation_id, _ in reserved})
        )
    )
    for plan in plans:
        for job in plan.plan.get("jobs", ()):
            for pod in view.pods_of(job["uid"]):
                key = (plan.id, pod.spec.node_name)
                if key in reserved and not is_terminal(pod):
                    reserved[key] -= gpu_request(pod)
    total: dict[str, int] = {}
    for (_, node), gpus in reserved.items():
        if gpus > 0:
            total[node] = total.get(node, 0) + gpus
    return total


def _taken_out(connection: Connection, cluster: str) -> set[str]:
    """Nodes that open operations take out of service; an uncordon takes none."""
    rows = connection.execute(
        select(_held.c.node)
        .select_from(_held.join(_operation, _operation.c.id == _held.c.operation_id))
        .where(_held.c.cluster == cluster, _held.c.open, _operation.c.kind != "uncordon")
    )
    return {row.node for row in rows}


def read_limits(
    connection: Connection,
    cluster: str,
    wish: Wish,
    *,
    view: ClusterView,
    settings: Settings,
    now: datetime,
) -> Limits:
    """The limits as they stand against a wish now."""
    since = now - timedelta(seconds=RATE_WINDOW_SECONDS)
    taken = connection.execute(
        select(func.count(func.distinct(_held.c.node)))
        .select_from(_held.join(_operation, _operation.c.id == _held.c.operation_id))
        .where(
            _held.c.cluster == cluster,
            _operation.c.kind.in_(("drain", "reschedule")),
            _operation.c.created_at > counted_from(connection, cluster, since),
            _held.c.node.not_in(wish.nodes),
        )
    ).scalar_one()
    gpu_nodes = {name for name in wish.nodes if is_gpu_node(view.nodes[name])}
    held = _taken_out(connection, cluster)
    return judge_limits(
        gpu_nodes,
        view=view,
        held=held,
        taken_in_window=int(taken),
        settings=limit_settings(settings),
        now=now,
        typed=wish.past_limits,
        warn_only=wish.evicts_nothing and not wish.automatic,
        more=topology_lines(
            gpu_nodes,
            view=view,
            held=held,
            restarts=wish.options.mode != COMPLETE,
        ),
    )


def limit_settings(settings: Settings) -> LimitSettings:
    """The limits as the site sets them."""
    return LimitSettings(
        max_unavailable_nodes_ratio=settings.max_unavailable_nodes_ratio,
        max_drains_per_hour=settings.max_drains_per_hour,
        max_drains_per_hour_ratio=settings.max_drains_per_hour_ratio,
        min_usable_nodes_ratio=settings.min_usable_nodes_ratio,
        max_unavailable_block_nodes_ratio=settings.max_unavailable_block_nodes_ratio,
        block_label=settings.topology_block_label,
    )
