"""Roles of people who signed in at the page, and what each may ask for. Pure.

A role only narrows: whether the person may do it in the cluster is still asked of Kubernetes. Requests whose
author a Kubernetes token proved (/v1) and those of a page without sign-in carry no role.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

from app.errors import RequestRefused
from app.settings import Role

ROLES = get_args(Role)
"""Each may what those before it may. Viewer: look, and preview. Operator: all that the on-call engineer does.
Approver: let a large drain go, end a pause, reset a limit. Admin: who is told of alerts, and where."""

EVERYBODY = "*"

_NEEDS: Mapping[str, str] = {
    "preview": "viewer",
    "approve": "approver",
    "unpause": "approver",
    "reset_limit": "approver",
    "receiver_add": "admin",
    "receiver_disable": "admin",
}
"""Any other kind of request is the operator's."""


def role_needed(kind: str) -> str:
    """The least role that may ask for a request of this kind."""
    return _NEEDS.get(kind, "operator")


def may(role: str | None, kind: str) -> bool:
    """Whether who has the role may ask for it; None is who has no role because nobody gives any."""
    if role is None:
        return True
    return role in ROLES and ROLES.index(role) >= ROLES.index(role_needed(kind))


def refusal(author: str, role: str | None, kind: str) -> str:
    """Why not, in one sentence; "" where they may."""
    if may(role, kind):
        return ""
    needed = role_needed(kind)
    return (
        f"{author} is {role or 'nobody'} here, and {kind.replace('_', ' ')} takes the role {needed}: "
        f"ask for a group that PITWALL_ROLE_GROUPS names for it."
    )


def refuse_unless(author: str, role: str | None, kind: str) -> None:
    """Raises RequestRefused, forbidden, where the role does not do."""
    if sentence := refusal(author, role, kind):
        raise RequestRefused(sentence, code="forbidden")


def role_of(groups: Sequence[str], role_groups: Mapping[Role, Sequence[str]]) -> str | None:
    """The highest role that one of the groups gives, None where none does. `*` is every group."""
    for role in reversed(ROLES):
        named = role_groups.get(role, ())
        if EVERYBODY in named or set(groups) & set(named):
            return role
    return None
