"""A desk over a store and a view that is set, for tests of requests: ask, let it answer, look."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from cluster_builders import NOW
from sqlalchemy import Engine, insert, select

from app.operations.lease import LeaseKeeper
from app.operations.requests import RequestDesk
from app.settings import Settings
from app.store.engine import read, write
from app.store.records import RequestRecord
from app.store.requests import request, submit
from app.store.tables import AuditEntry, Incident, Node
from k8s.view import ClusterView

CLUSTER = "test"


@dataclass
class Site:
    """A store, a cluster as it is seen, and a worker's desk."""

    engine: Engine
    seen: ClusterView
    settings: dict[str, Any] = field(default_factory=dict)
    now: datetime = NOW

    def ask(self, kind: str, *, author: str = "ada", reason: str = "r", **parameters: Any) -> str:
        """Writes a request; gives its id."""
        self.now += timedelta(milliseconds=1)
        return submit(
            self.engine,
            CLUSTER,
            kind=kind,
            parameters=parameters,
            author=author,
            reason=reason,
            idempotency_key="",
            now=self.now,
        ).id

    def answer(self, request_id: str) -> RequestRecord:
        """The request after the worker's turn; a new worker each time, so nothing is kept in memory."""
        self.turn()
        found = request(self.engine, CLUSTER, request_id)
        assert found is not None
        return found

    def get(self, kind: str, **asked: Any) -> RequestRecord:
        """Asks, and gives the answer."""
        return self.answer(self.ask(kind, **asked))

    def turn(self) -> None:
        keeper = LeaseKeeper(self.engine, CLUSTER, holder="w1", clock=lambda: self.now)
        keeper.renew()
        made = Settings(_env_file=None, cluster=CLUSTER, **self.settings)
        RequestDesk(
            self.engine,
            settings=made,
            view=lambda: replace(self.seen, observed_at=self.now),
            lease=keeper,
            clock=lambda: self.now,
        ).tick()

    def known(self, name: str, **values: Any) -> None:
        """A node as the store knows it."""
        row = {"health": "Healthy", "service": "In service", "service_reason": "", "score": 0}
        with write(self.engine) as connection:
            connection.execute(
                insert(Node.__table__).values(
                    cluster=CLUSTER, name=name, health_reason="", **{**row, **values}
                )
            )

    def incident(self, incident_id: str, nodes: list[str]) -> None:
        """An open incident over nodes."""
        with write(self.engine) as connection:
            connection.execute(
                insert(Incident.__table__).values(
                    **Incident(
                        cluster=CLUSTER,
                        id=incident_id,
                        scope="rack",
                        subject="r1",
                        severity="fatal",
                        title="t",
                        cause="xid-79",
                        opened_at=NOW,
                        updated_at=NOW,
                        nodes=nodes,
                    ).model_dump()
                )
            )

    def audited(self, action: str) -> list[tuple[str, str, str]]:
        """(author, outcome, message) of the worker's audit rows of that action, in order."""
        table = AuditEntry.__table__
        with read(self.engine) as connection:
            rows = connection.execute(
                select(table.c.author, table.c.outcome, table.c.message)
                .where(table.c.action == action, table.c.actor == "worker")
                .order_by(table.c.id)
            ).all()
        return [tuple(row) for row in rows]
