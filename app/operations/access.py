"""May they: SubjectAccessReviews about the people who asked, kept for a short while.

A review without an object's name speaks for every name, so that a fleet's nodes take one; only where
that is refused the name itself is asked about, for roles limited by resourceNames. What cannot be asked
is neither yes nor no.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from app.operations.people import LocalUser, Person
from k8s.client import Connection
from k8s.errors import KubernetesError
from k8s.tokens import AccessAnswer, TokenIdentity, review_access

KEPT_SECONDS = 30.0
"""How long an answer counts: a right that was taken away is noticed within it (issue 4)."""

SILENCE_SECONDS = 2.0
"""After a review that could not be made, the next is tried: an API server that is down takes seconds each."""

MOST_KEPT = 20_000


class Need(msgspec.Struct, frozen=True):
    """A right. resource is the plural, "pods/eviction" with its subresource; namespace "": all of them."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def said(self) -> str:
        """For people: "create pods/eviction in namespace train"."""
        plural = f"{self.resource}.{self.group}" if self.group else self.resource
        where = f" in namespace {self.namespace}" if self.namespace else ""
        name = f" {self.name}" if self.name else ""
        return f"{self.verb} {plural}{name}{where}"


class Verdict(msgspec.Struct, frozen=True):
    """allowed: None where nobody could say. message: one sentence where it is not True."""

    allowed: bool | None
    message: str = ""


class Access:
    """Asks one API server about people. Safe to use from several threads."""

    def __init__(
        self,
        connection: Connection,
        *,
        local: LocalUser,
        clock: Callable[[], float] = time.monotonic,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        """local: whom requests stand for that no token proved; kept_seconds: KEPT_SECONDS at most."""
        self.local = local
        self._connection = connection
        self._clock = clock
        self._kept_seconds = min(kept_seconds, KEPT_SECONDS)
        self._kept: dict[tuple[Person, Need], tuple[AccessAnswer, float]] = {}
        self._silent: tuple[str, float] | None = None
        self._lock = threading.Lock()

    def judge(self, people: Sequence[Person], needs: Iterable[Need]) -> tuple[Person, Verdict]:
        """The first of the people who may all of it, else the first of them and why not."""
        needs = tuple(needs)
        first: tuple[Person, Verdict] | None = None
        for person in people:
            verdict = self.may(person, needs)
            if verdict.allowed:
                return person, verdict
            if first is None or (first[1].allowed is False and verdict.allowed is None):
                first = person, verdict
        assert first is not None, "an operation has an author"
        return first

    def may(self, person: Person, needs: Iterable[Need]) -> Verdict:
        """Whether the person may all of it; the message names the first that they may not."""
        for need in needs:
            try:
                answer = self.answer(person, need)
            except KubernetesError as error:
                return Verdict(
                    None,
                    f"Whether {person.said} may {need.said} can't be asked now ({error}); it is asked again.",
                )
            if not answer.allowed:
                why = f" ({answer.reason})" if answer.reason else ""
                return Verdict(False, f"{person.said} may not {need.said} in the cluster{why}.")
        return Verdict(True)

    def answer(self, person: Person, need: Need) -> AccessAnswer:
        """The API server's word on one right. Raises KubernetesError when it can't be had."""
        whole = msgspec.structs.replace(need, name="")
        answer = self._ask(person, whole)
        return answer if answer.allowed or not need.name else self._ask(person, need)

    def _ask(self, person: Person, need: Need) -> AccessAnswer:
        now = self._clock()
        with self._lock:
            known = self._kept.get((person, need))
            silent = self._silent
        if known is not None and now < known[1]:
            return known[0]
        if silent is not None and now < silent[1]:
            raise KubernetesError(silent[0])
        identity = TokenIdentity(True, person.username, person.groups)
        try:
            answer = review_access(
                self._connection,
                identity,
                need.verb,
                need.group,
                need.resource,
                name=need.name or None,
                namespace=need.namespace or None,
            )
        except KubernetesError as error:
            with self._lock:
                self._silent = str(error), self._clock() + SILENCE_SECONDS
            raise
        with self._lock:
            self._silent = None
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            # From before the question: what is taken away meanwhile must not count longer.
            self._kept[(person, need)] = answer, now + self._kept_seconds
        return answer
