"""Keeps what people may do: asked of the API server for those who asked for something lately."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Engine, select

from app.operations.access import Access, Need
from app.operations.people import Person, local_user, person_of
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.records import PermissionRecord
from app.store.tables import Request
from app.store.writes.permissions import store_permissions
from k8s.client import Connection
from k8s.errors import KubernetesError

log = structlog.get_logger()

LATELY = timedelta(hours=1)
MOST_PEOPLE = 50
"""Of those who asked last: with NEEDS that is 250 reviews a turn at most, about 13 a second."""

NEEDS = (
    Need("list", "", "nodes"),
    Need("patch", "", "nodes"),
    Need("create", "", "pods/eviction"),
    Need("patch", "batch", "jobs"),
    Need("delete", "", "pods"),
)
"""What buttons follow: to look, to cordon, to evict, to restart a job, to give a dead node's pods up."""

_request = table_of(Request)


class PermissionFacts:
    """One turn asks about each person anew."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        *,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._cluster = settings.cluster
        self._clock = clock
        self._local = local_user(settings)
        # A fact says when it was heard: no answer of a turn before counts for it.
        self._access = Access(connection, local=self._local, kept_seconds=0.0)

    def tick(self) -> int:
        """Asks, and stores the answers; gives how many. Facts about whom nobody can say grow old.

        Raises StoreError.
        """
        facts: list[tuple[str, PermissionRecord]] = []
        for person in self._people():
            for need in NEEDS:
                try:
                    answer = self._access.answer(person, need)
                except KubernetesError as error:
                    log.debug("permissions not heard", error=str(error))
                    return 0
                resource = f"{need.resource}.{need.group}" if need.group else need.resource
                fact = PermissionRecord(
                    need.verb, resource, answer.allowed, answer.reason[:500], self._clock()
                )
                facts.append((person.username, fact))
        with write(self._engine) as connection:
            store_permissions(connection, self._cluster, facts, now=self._clock())
        return len(facts)

    def _people(self) -> list[Person]:
        """Who asked lately, the last first, and whom the page stands for."""
        since = self._clock() - LATELY
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_request.c.author, _request.c.author_groups)
                .where(_request.c.cluster == self._cluster, _request.c.created_at > since)
                .order_by(_request.c.created_at.desc())
                .limit(MOST_PEOPLE * 20)
            ).all()
        people: dict[str, Person] = {}
        if self._local.username:
            person = person_of("the page", None, self._local)
            people[person.username] = person
        for row in rows:
            person = person_of(row.author, row.author_groups, self._local)
            people.setdefault(person.username, person)
        return list(people.values())[:MOST_PEOPLE]
