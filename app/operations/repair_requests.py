"""A person's word on a node's way back: under repair, and back from it. In the caller's transaction.

Neither touches Kubernetes itself: a repair is a note in the store, and what returns from one is
uncordoned as by any other uncordon, with the same checks.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.errors import RequestRefused
from app.operations import admission
from app.operations.service import PROBATION, UNDER_REPAIR
from app.operations.wishes import Parameters, read_nodes
from app.settings import Settings
from app.store.reads.repairs import last_diagnostic, reoffences, repair_opened_at
from app.store.requests import MAX_REASON_LENGTH
from app.store.writes.repairs import add_note, close_repairs, open_repair
from app.store.writes.service import Kept, end_probation, read_kept, send_to_repair
from k8s.view import ClusterView

LEMON_FROM = 2
"""From the second time on that it failed again after a return, a node is called a lemon. Our judgement."""

Uncordon = Callable[[tuple[str, ...]], str]
"""Opens an uncordon of these nodes and gives its id. Raises RequestRefused."""


REPAIR_ACTIONS = ("", "reset-gpu", "reboot", "power-cycle", "replace", "rma")
"""What may be asked of whoever repairs, by the webhook where a site has one."""


def repair(
    connection: Connection,
    cluster: str,
    parameters: Parameters,
    *,
    request: Any,
    view: ClusterView,
    now: datetime,
    calls: bool = False,
) -> None:
    """Notes that nodes are under repair, by whom and why. Raises RequestRefused, nothing being kept then.

    A node under repair already gets the new note. calls: a webhook is told of the action that is named.
    """
    if parameters.repair not in REPAIR_ACTIONS:
        raise RequestRefused(
            f"There is no repair {parameters.repair}: {', '.join(filter(None, REPAIR_ACTIONS))}."
        )
    nodes = read_nodes(parameters, view=view)
    note = (parameters.text or request.reason).strip()
    if not note:
        raise RequestRefused("Say what is to be repaired (text): others will read it.")
    if len(note) > MAX_REASON_LENGTH or "\x00" in note:
        raise RequestRefused(
            f"A repair's text has at most {MAX_REASON_LENGTH} characters and no NUL among them."
        )
    held = admission.held_nodes(connection, cluster)
    kept = read_kept(connection, cluster, names=nodes)
    for name in nodes:
        if name in held:
            raise RequestRefused(
                f"{name} is held by operation {held[name]}: wait for it, or cancel it first.",
                code="conflict",
            )
        if not view.nodes[name].spec.unschedulable:
            raise RequestRefused(
                f"{name} is schedulable, so pods may run on it: drain it first.", code="conflict"
            )
        _require_known(name, kept, view)
    send_to_repair(connection, cluster, nodes, by=request.author, note=note)
    for name in nodes:
        open_repair(
            connection,
            cluster,
            name,
            by=request.author,
            note=note,
            action=parameters.repair,
            calls=calls and bool(parameters.repair),
            now=now,
        )


def add_words(
    connection: Connection, cluster: str, parameters: Parameters, *, request: Any, now: datetime
) -> None:
    """Adds a note to the last repair of each node. Raises RequestRefused."""
    text = (parameters.text or request.reason).strip()
    if not text or len(text) > MAX_REASON_LENGTH or "\x00" in text:
        raise RequestRefused(
            f"A note (text) has from 1 to {MAX_REASON_LENGTH} characters and no NUL among them."
        )
    if not parameters.nodes:
        raise RequestRefused("Name the nodes whose repair the note is about.")
    for name in parameters.nodes:
        add_note(connection, cluster, name, by=request.author, text=text, now=now)


def give_back(
    connection: Connection,
    cluster: str,
    parameters: Parameters,
    *,
    view: ClusterView,
    uncordon: Uncordon,
    request: Any,
    settings: Settings,
    now: datetime,
) -> tuple[str | None, str]:
    """Nodes under repair are uncordoned and go on probation; nodes on probation are in service at once.

    Gives the uncordon's id, None where none was needed, and what is to be known. Raises RequestRefused, nothing
    being kept then.
    """
    nodes = read_nodes(parameters, view=view)
    kept = read_kept(connection, cluster, names=nodes)
    repaired, proven = [], []
    for name in nodes:
        row = _require_known(name, kept, view)
        # The store's state follows a person's word within a second; the word itself counts here.
        if row.repair_by and view.nodes[name].spec.unschedulable:
            repaired.append(name)
        elif row.service == PROBATION:
            proven.append(name)
        else:
            raise RequestRefused(
                f"{name} is {row.service}: only what is {UNDER_REPAIR} or on {PROBATION} returns"
                + (" (`pitwall uncordon` ends a cordon)." if row.service != "In service" else "."),
                code="conflict",
            )
    typed = set(parameters.confirmation.split())
    for name in repaired:
        if name not in typed and (
            sentence := _undiagnosed(connection, cluster, name, settings.return_needs_diagnostic)
        ):
            raise RequestRefused(
                f"{sentence} Type its name (--confirm) to give it back all the same.",
                code="protected",
            )
    if proven:
        end_probation(connection, cluster, proven)
    opened = uncordon(tuple(repaired)) if repaired else None
    close_repairs(connection, cluster, repaired, by=request.author, now=now)
    return opened, _lemons(connection, cluster, nodes, settings, now)


def _undiagnosed(connection: Connection, cluster: str, name: str, needed: bool) -> str:
    """Why its diagnostics stand against a return; "" where they do not."""
    since = repair_opened_at(connection, cluster, name)
    last = last_diagnostic(connection, cluster, name, since=since)
    if last is None:
        return f"No diagnostic of {name} has passed since its repair began." if needed else ""
    if last.state == "passed":
        return ""
    if last.ended_at is None:
        return f"Diagnostic {last.id} still runs on {name}."
    said = f": {last.message}" if last.message else ""
    return f"The last diagnostic of {name}, {last.id}, {last.state}{said.rstrip('.')}."


def _lemons(
    connection: Connection,
    cluster: str,
    nodes: tuple[str, ...],
    settings: Settings,
    now: datetime,
) -> str:
    """Which of the nodes have failed again after being given back, and how often; "" where none has."""
    days = settings.reoffence_days
    counts = reoffences(connection, cluster, nodes, days=days, now=now)
    told = [
        f"{name} has failed again {count} times within {days:g} days of a return: replace it rather than repair it."
        for name, count in counts.items()
        if count >= LEMON_FROM
    ]
    return " ".join(told) or "Accepted."


def _require_known(name: str, kept: dict[str, Kept], view: ClusterView) -> Kept:
    row = kept.get(name)
    if row is None or row.uid != view.nodes[name].metadata.uid:
        raise RequestRefused(
            f"{name} is not known as a GPU node yet: see `pitwall nodes`, and ask again.",
            code="not_found",
        )
    return row
