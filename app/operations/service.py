"""The state of a node apart from its health: In service, Cordoned, Draining, Drained. Pure.

An open operation says it of its nodes. Without one, a node that Pitwall drained stays Drained for as long
as it is cordoned and carries that drain's annotation; any other cordon is Cordoned, whoever made it.
"""

from collections.abc import Mapping

import msgspec

from k8s.nodes import read_hold
from k8s.objects import Node
from k8s.view import ClusterView

IN_SERVICE = "In service"
CORDONED = "Cordoned"
DRAINING = "Draining"
DRAINED = "Drained"

_OF_NODE_STATE = {"Draining": DRAINING, "Cordoning": DRAINING, "Drained": DRAINED}


class Holding(msgspec.Struct, frozen=True):
    """What an operation says of one of its nodes. state: as in the operation's nodes_state."""

    operation_id: str
    kind: str
    state: str
    open: bool


class Service(msgspec.Struct, frozen=True):
    """A node's service state, why, and the operation that holds it."""

    state: str
    reason: str = ""
    operation_id: str | None = None


def services(
    view: ClusterView,
    *,
    open_holdings: Mapping[str, Holding],
    ended_holdings: Mapping[str, Holding],
) -> dict[str, Service]:
    """The service state of every node. open_holdings: by node; ended_holdings: by operation id and node,
    joined by a slash."""
    return {
        name: service_of(node, open_holdings.get(name), ended_holdings)
        for name, node in view.nodes.items()
    }


def service_of(
    node: Node, holding: Holding | None, ended_holdings: Mapping[str, Holding]
) -> Service:
    """The service state of one node."""
    if holding is not None and holding.open:
        if holding.kind == "drain":
            state = _OF_NODE_STATE.get(holding.state, DRAINING)
            if holding.state in ("Cordoned", "Given back"):
                state = CORDONED if node.spec.unschedulable else IN_SERVICE
        else:
            state = CORDONED if node.spec.unschedulable else IN_SERVICE
        return Service(state, f"operation {holding.operation_id}", holding.operation_id)
    if not node.spec.unschedulable:
        return Service(IN_SERVICE)
    hold = read_hold(node.metadata)
    if hold is None:
        return Service(CORDONED, "cordoned outside Pitwall")
    ended = ended_holdings.get(f"{hold.operation}/{node.metadata.name}")
    if ended is not None and ended.kind == "drain" and ended.state == "Drained":
        return Service(DRAINED, f"drained by operation {hold.operation}")
    return Service(CORDONED, f"left cordoned by operation {hold.operation}")
