"""What an incident says for itself: title, action, evidence. Pure."""

from collections.abc import Sequence
from datetime import datetime

from app.incidents.classes import NOT_READY, SILENT, class_of
from app.incidents.domains import KIND_WORDS
from app.incidents.model import Evidence, Fault, NodeFact

SILENT_ACTION = "see whether the node is up; drain it if it does not come back"
AGENTS_ACTION = "see whether ingest runs and the nodes reach it; their jobs may be well"
KUBELETS_ACTION = "see whether the API server is reached from the nodes; drain none of them yet"
RESTART_ACTION = "restart the application; no node need be drained for it"

DOMAIN_TROUBLES = {
    "link": "InfiniBand links are troubled",
    "cooling": "GPUs run hot",
    "power": "power is short or gone",
    "silence": "nodes are not heard",
}
DOMAIN_ACTIONS = {
    (
        "link",
        "leaf",
    ): "look at the leaf switch, its power and its uplinks; draining the nodes mends nothing",
    ("link", ""): "look at the fabric that these nodes share; draining them mends nothing",
    (
        "cooling",
        "",
    ): "look at the cooling of it (air, liquid, a door left open) before any node is drained",
    ("power", ""): "look at its power feed and breakers before any node is drained",
    ("silence", ""): "look at its power and its network; drain the nodes if they do not come back",
}
MOST_EVIDENCE = 50


def node_title(node: str, first: Fault) -> str:
    """Of a node's incident."""
    if first.rule == SILENT or first.message.startswith(node):
        return first.message
    return f"{node}: {first.message}"


def silent_message(node: str, since: datetime) -> str:
    """Of a node that has not reported since then."""
    return f"{node} is silent: no report since {since:%H:%M:%S} UTC"


def mass_title(count: int, total: int, *, since: datetime, subject: str) -> str:
    """Of an incident of the pipeline. total: nodes that ever reported."""
    what = "fell silent" if subject == "agents" else "became NotReady"
    return f"{count:,} of {total:,} nodes {what} together at {since:%H:%M:%S} UTC"


def domain_title(kind: str, name: str, *, family: str, count: int, since: datetime) -> str:
    """Of an incident of a shared domain."""
    return (
        f"{KIND_WORDS[kind]} {name}: {DOMAIN_TROUBLES[family]} on {count:,} of its nodes "
        f"since {since:%H:%M:%S} UTC"
    )


def domain_action(kind: str, family: str) -> str:
    """What to do first about a shared domain."""
    return DOMAIN_ACTIONS.get((family, kind), DOMAIN_ACTIONS[family, ""])


def fault_words(fault: Fault) -> str:
    """A fault with where it is."""
    if not fault.node or fault.message.startswith(fault.node):
        return fault.message
    return f"{fault.node}: {fault.message}"


def tell_evidence(
    faults: Sequence[Fault], nodes: Sequence[NodeFact], blind: Sequence[str]
) -> list[Evidence]:
    """Each finding, then what cannot be known."""
    told = [
        Evidence(fault.opened_at, fault.source, fault_words(fault), fault.episode)
        for fault in faults[:MOST_EVIDENCE]
    ]
    if not faults:
        return told
    at = faults[0].opened_at
    seen = {fault.node for fault in faults if class_of(fault) not in ("absence", "job")}
    for fault in faults:
        if fault.rule == SILENT and fault.node in seen and len(told) < 2 * MOST_EVIDENCE:
            unseen = f"what {fault.node} does since {fault.opened_at:%H:%M:%S} UTC is not known: it does not report"
            told.append(Evidence(fault.opened_at, "agent", unseen, f"blind-{fault.node}"))
    ready = {fault.node for fault in faults if fault.rule == NOT_READY}
    for node in nodes:
        if (
            node.kubernetes_ready is None
            and node.name not in ready
            and len(told) < 2 * MOST_EVIDENCE
        ):
            unheard = f"Kubernetes has not spoken of {node.name}: which pods it ran is not known"
            told.append(Evidence(at, "kubernetes", unheard, f"kubernetes-{node.name}"))
    told.extend(Evidence(at, "pitwall", sentence, sentence) for sentence in blind)
    return told
