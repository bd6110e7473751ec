"""A store and a lease for what sends alerts; the clock can be put forward."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine, insert, select

from app.alerts.model import fingerprint
from app.ingest.store_metrics import StoreMetrics
from app.operations.lease import LeaseKeeper
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import Alert, AlertDelivery

CLUSTER = "test"


class Office:
    """What the sending side stands on."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.settings = Settings(_env_file=None, cluster=CLUSTER, store_url=url)
        self.offset_seconds = 0.0
        self.lease = LeaseKeeper(engine, CLUSTER, holder="test", clock=self.clock)
        self.lease.renew()

    def clock(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.offset_seconds, UTC)

    def pass_time(self, **how: float) -> None:
        self.offset_seconds += timedelta(**how).total_seconds()
        self.lease.renew()

    def alert(self, name: str, *, ended: bool = False, **labels: str) -> str:
        now = self.clock()
        said = {"alertname": name, "cluster": CLUSTER, "severity": "critical", **labels}
        row = {
            "cluster": CLUSTER, "id": f"{name}-{fingerprint(said)[:8]}", "fingerprint": fingerprint(said), "labels": said,
            "annotations": {"summary": f"{name} of {labels}", "link": "http://127.0.0.1:8501/incidents?id=i1"},
            "severity": said["severity"], "state": "resolved" if ended else "firing", "started_at": now - timedelta(seconds=5),
            "updated_at": now, "ended_at": now if ended else None, "silenced_by": [],
        }  # fmt: skip
        with write(self.engine) as connection:
            connection.execute(insert(table_of(Alert)).values(**row))
        return str(row["id"])

    def end(self, alert_id: str) -> None:
        with write(self.engine) as connection:
            table = table_of(Alert)
            connection.execute(
                table.update()
                .where(table.c.id == alert_id)
                .values(ended_at=self.clock(), state="resolved")
            )

    def deliver(self, receiver: str, *, key: str = "k1", event: str = "trigger", number: int = 0, title: str = "XID 79") -> str:  # fmt: skip
        delivery_id = f"{receiver}-{key}-{event}-{number}"
        now = self.clock()
        message = {
            "title": title,
            "body": "GPU 3 of h100-a-r01-05",
            "severity": "fatal",
            "link": "http://127.0.0.1:8501/x",
        }
        with write(self.engine) as connection:
            connection.execute(
                insert(table_of(AlertDelivery)).values(
                    cluster=CLUSTER, id=delivery_id, number=number, receiver=receiver, group_key=key, alert_ids=["a"],
                    event=event, deduplication_key=key, message=message, state="pending", attempts=0, created_at=now,
                    next_attempt_at=now, last_error="",
                )
            )  # fmt: skip
        return delivery_id

    def rows(self) -> dict[str, Any]:
        with read(self.engine) as connection:
            return {row.id: row for row in connection.execute(select(table_of(AlertDelivery)))}


def until(met: Callable[[], Any], what: str, *, seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := met():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not met within {seconds} s: {what}")


def exposition(office: Office, cluster: str = CLUSTER) -> str:
    registry = CollectorRegistry()
    registry.register(StoreMetrics(office.engine, cluster, now=office.clock))
    return generate_latest(registry).decode()
