"""Acceptance 15: alerts at detect, drain start, stuck, failed and done; one an episode; a sender's outage loses none."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from operation_world import CLUSTER, ENDED, Driver, World, world_of

from app.alerts.config import parse_config
from app.store.engine import write
from app.store.sources import note_source
from app.store.writes.incidents import refresh_incidents
from app.store.writes.reports import store_reports
from app.worker_alerts import AlertDesk
from app.worker_deliveries import Deliveries
from app.worker_sync import ClusterSync
from tests.reports import finding, report

FILE = """
[[receiver]]
name = "pager"
url_file = "{address}"

[root]
group_by = ["..."]
group_wait_seconds = 0
group_interval_seconds = 1
"""


@contextmanager
def pager() -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if server.up:  # type: ignore[attr-defined]
                server.heard.append(body)  # type: ignore[attr-defined]
            self.send_response(200 if server.up else 503)  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.heard, server.up = [], True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Watch:
    """A worker's parts that see, decide and tell, their turns taken by the test."""

    def __init__(self, world: World, folder: Path, port: int) -> None:
        (folder / "pager").write_text(f"json://127.0.0.1:{port}/hook")
        config = parse_config(FILE.format(address=folder / "pager"))
        self.world, self.driver = world, Driver(world)
        common: dict[str, Any] = {
            "settings": world.settings,
            "lease": self.driver.lease,
            "clock": world.clock,
        }
        self.desk = AlertDesk(world.engine, config, **common)
        self.deliveries = Deliveries(world.engine, config, **common)
        self.sync = ClusterSync(
            world.engine, settings=world.settings, watcher=world.watcher, clock=world.clock
        )

    def tell(self) -> None:
        self.driver.lease.renew()
        self.sync.tick()
        with write(self.world.engine) as connection:
            refresh_incidents(connection, CLUSTER, self.world.clock())
            for source in ("agents", "kubernetes", "ingest", "worker"):
                note_source(connection, CLUSTER, source, state="ok", now=self.world.clock())
        self.desk.tick()
        while self.deliveries.tick():
            pass

    def until(self, operation_id: str, *states: str) -> None:
        def met() -> bool:
            self.tell()
            return self.world.state(operation_id) in states

        self.driver.run_until(met)
        self.tell()


def test_acceptance_15_each_turn_of_a_drain_is_told_once_and_an_outage_loses_none(
    tmp_path: Path,
) -> None:
    with pager() as receiver, world_of(tmp_path, nodes=6) as world:
        uid = world.create_job("llm", ranks=2)
        pods = world.wait(world.running(uid, 2))
        dying, draining = (pod.spec.node_name for pod in pods)
        watch = Watch(world, tmp_path, receiver.server_port)
        watch.tell()

        at = world.clock()
        said = report(draining, 1, findings=[finding("e1", severity="fatal", since=at)])
        with write(world.engine) as connection:
            store_reports(connection, CLUSTER, [msgspec.structs.replace(said, cluster=CLUSTER, observed_at=at)], at)  # fmt: skip
        watch.tell()
        assert [one["title"] for one in receiver.heard if draining in one["title"]], "detect"

        world.kill_node(dying)
        receiver.up = False
        stuck = world.drain(watch.driver, draining)
        watch.until(stuck, "Waiting")
        world.offset_seconds = 120
        watch.until(stuck, "Blocked")
        world.offset_seconds += 600
        watch.tell()
        assert not [one for one in receiver.heard if "began" in one["title"]], "the pager is down"
        receiver.up = True
        world.offset_seconds += 1000
        watch.tell()
        world.answer(
            watch.driver,
            "choose",
            operation_id=stuck,
            choice="confirm_power_off",
            confirmation=dying,
        )
        watch.until(stuck, *ENDED)
        assert world.state(stuck) == "Succeeded", world.describe()

        spare = next(
            name
            for name, node in world.view().nodes.items()
            if name not in (dying, draining) and not node.spec.unschedulable
        )
        failing = world.drain(watch.driver, spare)
        world.disturb(method="PATCH", path_prefix="/api/v1/nodes/", status=403)
        watch.until(failing, "Failed")
        for _ in range(5):
            world.offset_seconds += timedelta(minutes=2).total_seconds()
            watch.tell()
        watch.deliveries.close()
        told = Counter(_what(one) for one in receiver.heard if one["event"] == "trigger")
        # The one that failed was over before it was looked at.
        assert told["began"] == 1, told
        assert {name: told[name] for name in ("detect", "stuck", "failed", "done")} == {
            "detect": 1,
            "stuck": 1,
            "failed": 1,
            "done": 1,
        }, [one["title"] for one in receiver.heard]


def _what(document: dict[str, Any]) -> str:
    words = {"began": "began", "is stuck": "stuck", "failed": "failed", "is done": "done"}
    name = document["alerts"][0]["name"] if document["alerts"] else ""
    if name == "NodeIncident":
        return "detect"
    return next((word for text, word in words.items() if text in document["title"]), name)
