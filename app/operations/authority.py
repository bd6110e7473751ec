"""In whose name an operation writes: reviewed before each step, written as the right account, told after it."""

from collections.abc import Callable, Mapping
from datetime import datetime

from app.operations.access import Access
from app.operations.accounts import acting_as
from app.operations.calls import Answer, FencedConnection
from app.operations.events import EventWriter, note_of
from app.operations.model import Act, Operation, Step, StepKey
from app.operations.people import Person
from app.operations.rights import Reviewed, review
from app.settings import Settings
from k8s.client import Connection
from k8s.view import ClusterView

People = Mapping[StepKey, Person]


class Authority:
    """What the reconciler asks about people: may they, as whom is it written, and who is told."""

    def __init__(
        self,
        connection: Connection,
        *,
        access: Access,
        settings: Settings,
        guard: Callable[[], object],
        events: EventWriter,
    ) -> None:
        """connection: of the worker's own account; guard: raises when no write may be made any more."""
        self._own = connection
        self._access = access
        self._settings = settings
        self._guard = guard
        self._events = events

    def review(self, operation: Operation, act: Act, view: ClusterView) -> Reviewed:
        """The steps of an act that may be taken, and in whose name."""
        return review(operation, act, access=self._access, view=view)

    def connection(self, step: Step, person: Person | None) -> Connection | None:
        """The fenced connection that the step is written by; None: the worker's own."""
        who = acting_as(step, person, self._settings)
        if who is None:
            return None
        return FencedConnection(self._own.impersonating(who), self._guard)

    def tell(
        self,
        operation: Operation,
        step: Step,
        answer: Answer,
        *,
        author: str,
        view: ClusterView,
        now: datetime,
    ) -> None:
        """An Event on what was written; never raises for what Kubernetes says."""
        self._events.write(
            note_of(operation, step, message=answer.message, author=author, view=view, now=now)
        )

    def close(self) -> None:
        """Writes the Events that wait."""
        self._events.close()
