"""Nodes that report, the desk that decides and the outbox that sends, on one store."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from office import CLUSTER, Office
from receiving import HttpReceiver
from sqlalchemy import select

from app.alerts.config import AlertConfig, parse_config
from app.store.engine import read, write
from app.store.reads import alerts as reads
from app.store.reads.rows import table_of
from app.store.sources import note_source
from app.store.tables import Incident
from app.store.writes.incidents import refresh_incidents
from app.store.writes.reports import store_reports
from app.worker_alerts import AlertDesk
from app.worker_deliveries import Deliveries
from tests.reports import finding, report

CONFIG = """
[[receiver]]
name = "pager"
url_file = "{folder}/pager"

[[receiver]]
name = "chat"
url_file = "{folder}/chat"

[root]
receivers = ["pager"]
{more}
"""


class House:
    """Nodes that report, the desk that decides, the outbox that sends."""

    def __init__(
        self, office: Office, folder: Path, hook: HttpReceiver, more: str = "", **settings: Any
    ) -> None:
        self.office = office
        for name in ("pager", "chat"):
            (folder / name).write_text(f"json://{hook.url}/{name}")
        self.hook = hook
        self.config: AlertConfig = parse_config(CONFIG.format(folder=folder, more=more))
        self.settings = office.settings.model_copy(update=settings)
        self.sequence: Counter[str] = Counter()
        self.faults: dict[str, tuple[str, ...]] = {}
        self.restart()

    def restart(self) -> None:
        """The worker is another one now; nothing but the store is left."""
        self.desk = AlertDesk(
            self.office.engine,
            self.config,
            settings=self.settings,
            lease=self.office.lease,
            clock=self.office.clock,
        )
        self.deliveries = Deliveries(
            self.office.engine,
            self.config,
            settings=self.settings,
            lease=self.office.lease,
            clock=self.office.clock,
        )

    def say(self, *nodes: str, sources: bool = True) -> None:
        """What these nodes' agents say now; the sources are well."""
        now = self.office.clock()
        said = []
        for node in nodes:
            self.sequence[node] += 1
            found = [finding(one, severity="fatal", since=now) for one in self.faults.get(node, ())]
            said.append(
                msgspec.structs.replace(
                    report(node, self.sequence[node], findings=found),
                    cluster=CLUSTER,
                    observed_at=now,
                )
            )
        with write(self.office.engine) as connection:
            if said:
                store_reports(connection, CLUSTER, said, now)
            refresh_incidents(connection, CLUSTER, now)
            for source in ("agents", "kubernetes", "ingest", "worker") if sources else ():
                note_source(connection, CLUSTER, source, state="ok", now=now)

    def fail(self, *nodes: str, episode: str = "e") -> None:
        for node in nodes:
            self.faults[node] = (f"{episode}-{node}",)
        self.say(*nodes)

    def mend(self, *nodes: str) -> None:
        for node in nodes:
            self.faults[node] = ()
        self.say(*nodes)

    def turn(self, seconds: float = 0, *nodes: str) -> None:
        """So much time passes, in which all goes on."""
        self.office.pass_time(seconds=seconds)
        self.say(*nodes)
        self.desk.tick()
        while self.deliveries.tick():
            pass

    def told(self, receiver: str = "pager") -> list[tuple[str, str]]:
        return [
            (h.document["event"], h.document["title"])
            for h in self.hook.heard
            if h.path == f"/{receiver}"
        ]

    def events(self, receiver: str = "pager") -> list[str]:
        return [event for event, _ in self.told(receiver)]

    def open(self) -> list[Any]:
        return reads.alerts(self.office.engine, CLUSTER)

    def incident(self) -> Any:
        with read(self.office.engine) as connection:
            return connection.execute(select(table_of(Incident))).first()
