"""As whom a step is written: the worker's own account, the person who asked, or the one for emergencies.

Whatever gives up a powered-off node is written as the account for emergencies alone, in every mode: the
worker's own may not delete pods, and no person lends it that right.
"""

from app.operations.model import BREAK_GLASS, Step
from app.operations.people import AUTHENTICATED, Person, account_groups
from app.settings import Settings
from k8s.client import Impersonation


def acting_as(step: Step, person: Person | None, settings: Settings) -> Impersonation | None:
    """Whom to impersonate for the step; None: nobody, it is the worker's own."""
    if step.name in BREAK_GLASS:
        return _as_user(settings.break_glass_user) if settings.break_glass_user else None
    if not settings.impersonate or person is None:
        return None
    return _as_user(person.username, person.groups)


def _as_user(username: str, groups: tuple[str, ...] = ()) -> Impersonation:
    # The API server adds a ServiceAccount's groups, and system:authenticated, itself; naming them would
    # need the right to impersonate each.
    known = {AUTHENTICATED, *account_groups(username)}
    return Impersonation(username, tuple(group for group in groups if group not in known))
