"""Many nodes by one name: a rack, a block, an incident. Inside the caller's transaction."""

import msgspec
from sqlalchemy import Connection, select

from app.errors import RequestRefused
from app.operations.wishes import Parameters
from app.store.reads.rows import table_of
from app.store.tables import Incident, Node
from k8s.view import ClusterView

_node = table_of(Node)
_incident = table_of(Incident)


def name_nodes(
    connection: Connection, cluster: str, parameters: Parameters, *, view: ClusterView
) -> Parameters:
    """The parameters with every node of the racks, blocks and incident that they name.

    Resolved anew at each look, so that an approval of a rack is void when the rack has changed. Raises
    RequestRefused, not_found, for one that has no node.
    """
    names = set(parameters.nodes or ())
    for rack in parameters.racks or ():
        names |= _nodes_of(connection, cluster, "rack", rack, view)
    for block in parameters.blocks or ():
        names |= _nodes_of(connection, cluster, "block", block, view)
    if parameters.incident:
        names |= _nodes_of_incident(connection, cluster, parameters.incident, view)
    if names == set(parameters.nodes or ()):
        return parameters
    return msgspec.structs.replace(parameters, nodes=sorted(names))


def _nodes_of(
    connection: Connection, cluster: str, what: str, name: str, view: ClusterView
) -> set[str]:
    rows = connection.execute(
        select(_node.c.name).where(_node.c.cluster == cluster, _node.c[what] == name)
    )
    found = {row.name for row in rows} & view.nodes.keys()
    if not found:
        raise RequestRefused(
            f"There is no node in {what} {name}: see `pitwall nodes`.", code="not_found"
        )
    return found


def _nodes_of_incident(
    connection: Connection, cluster: str, incident_id: str, view: ClusterView
) -> set[str]:
    row = connection.execute(
        select(_incident.c.nodes).where(
            _incident.c.cluster == cluster, _incident.c.id == incident_id
        )
    ).first()
    if row is None:
        raise RequestRefused(
            f"There is no incident {incident_id}: see `pitwall incidents --all`.", code="not_found"
        )
    found = set(row.nodes or ()) & view.nodes.keys()
    if not found:
        raise RequestRefused(
            f"Incident {incident_id} names no node that Kubernetes knows: name the nodes.",
            code="not_found",
        )
    return found
