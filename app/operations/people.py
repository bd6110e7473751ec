"""Whose rights count: the person behind an author's name, and behind each step of an operation. Pure.

A request that ingest wrote carries the groups of the token that proved its author. One that the page
wrote carries none, since the page has no sign-in: whoever reaches it on loopback stands for the site's
local user where one is set, else for the name that the page knows them by, in no group but
system:authenticated.
"""

from collections.abc import Sequence

import msgspec

from app.operations.model import BREAK_GLASS, POWER_OFF, TAKE_OVER, Operation, Step
from app.settings import Settings

AUTHENTICATED = "system:authenticated"
SERVICE_ACCOUNT = "system:serviceaccount:"
BY_PAGE = " (page)"
"""What the page puts after the name of who is at it (app.ui.context)."""


class Person(msgspec.Struct, frozen=True):
    """A user as the API server knows one. author: the name that requests and audit rows carry."""

    author: str
    username: str
    groups: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """Name for people, with whose rights count where those are not the author's own."""
        if self.username in (self.author, self.author.removesuffix(BY_PAGE)):
            return self.author
        return f"{self.author}, who acts as {self.username},"


class LocalUser(msgspec.Struct, frozen=True):
    """Whom a person at the page stands for; an empty username: the name that the page gives."""

    username: str = ""
    groups: tuple[str, ...] = ()


def local_user(settings: Settings) -> LocalUser:
    """The site's local user."""
    return LocalUser(settings.local_user or "", settings.local_groups)


def person_of(author: str, groups: Sequence[str] | None, local: LocalUser) -> Person:
    """The person of an author's name; groups: as the token said, None where no token proved the name."""
    if groups is not None:
        return Person(author, author, tuple(groups))
    if account := account_groups(author):  # automatic mode
        return Person(author, author, account)
    if local.username:
        known = (*account_groups(local.username), *local.groups)
        return Person(author, local.username, tuple(dict.fromkeys((*known, AUTHENTICATED))))
    return Person(author, author.removesuffix(BY_PAGE), (AUTHENTICATED,))


def account_groups(username: str) -> tuple[str, ...]:
    """The groups that the API server puts a ServiceAccount into; none for any other user."""
    namespace, _, name = username.removeprefix(SERVICE_ACCOUNT).partition(":")
    if not username.startswith(SERVICE_ACCOUNT) or not namespace or not name:
        return ()
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)


def people_of(operation: Operation, step: Step, local: LocalUser) -> tuple[Person, ...]:
    """Who asked for this step, the first being who counts most: any of them who may is enough.

    What only power-off allows is asked for by who confirmed that. What takes back is asked for by who
    cancelled, and was by the author when they asked for an operation that can be undone.
    """
    choices = operation.memory.choices
    took_over = [choice for choice in reversed(choices) if choice.name == TAKE_OVER]
    if step.name in BREAK_GLASS:
        confirmed = [
            choice
            for choice in reversed(choices)
            if choice.name == POWER_OFF and choice.subject == step.node
        ]
        asked = [(choice.by, choice.groups) for choice in (*took_over, *confirmed)]
    else:
        asked = [(choice.by, choice.groups) for choice in took_over]
        if operation.cancel_requested_by:
            asked.append((operation.cancel_requested_by, operation.cancel_groups))
        asked.append((operation.author, operation.author_groups))
    return tuple(dict.fromkeys(person_of(author, groups, local) for author, groups in asked))
