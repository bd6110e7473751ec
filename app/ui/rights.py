"""What who is at the page may do, by the facts that the worker wrote. Unknown is no refusal: the worker asks again."""

from app import roles
from app.store.reads.permissions import permissions
from app.store.records import PermissionRecord
from app.ui import context

LOOKING = frozenset({"acknowledge", "own", "note", "preview"})
"""Words that change nothing of the cluster; the worker reviews them all the same."""


def refusal(kind: str, choice: str = "") -> str:
    """Why a request of that kind would be refused; "" where it would not, or nobody knows."""
    who = context.signed_in()
    if refused := roles.refusal(who.username, who.role, kind):
        return refused
    if kind in LOOKING:
        return ""
    username = who.username
    if who.groups is None:  # nothing proved the name
        username = context.settings().local_user or username
    known = permissions(context.engine(), context.cluster(), username, now=context.now())
    return refusal_by(known, username, kind=kind, choice=choice)


def refusal_by(known: list[PermissionRecord], username: str, *, kind: str, choice: str = "") -> str:
    """As refusal, of facts that were read."""
    needed = [("patch", "nodes")]
    if choice == "confirm_power_off":
        needed.append(("delete", "pods"))
    if kind == "reschedule":
        needed.append(("patch", "jobs.batch"))
    for verb, resource in needed:
        for one in known:
            if (one.verb, one.resource) == (verb, resource) and not one.allowed:
                return f"{username} may not {verb} {resource} in the cluster, which this needs."
    return ""
