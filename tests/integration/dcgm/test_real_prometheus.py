"""A real Prometheus that scrapes an exporter says what the simulator's face says of the same series."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.simulator.clock import ManualClock
from app.simulator.hosts import PodReference
from app.simulator.prometheus import PrometheusFace
from app.simulator.simulation import Options, Simulation
from collectors.dcgm_columns import DcgmTable
from collectors.dcgm_readings import make_readings
from collectors.errors import SourceError
from collectors.prometheus import DcgmSource
from tests.captures import RECORDED
from tests.prometheus_servers import Answer, answer_of_face, serving

PROGRAM = shutil.which("prometheus")
CAPTURE = RECORDED / "aicr/extracted/dcgm-exporter-scrape-gpu-node-1-8xH100.prom"
PATIENCE_SECONDS = 15.0
TARGET_LABELS = ("__name__", "job", "instance")
OWN_POD = {
    "namespace": "gpu-operator",
    "pod": "nvidia-dcgm-exporter-wqqqn",
    "container": "nvidia-dcgm-exporter",
}

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(
        PROGRAM is None, reason="prometheus is not installed (apt-get install prometheus)"
    ),
]


class Exporters:
    """The text that each host's exporter gives; None: it fails."""

    def __init__(self) -> None:
        self.texts: dict[str, str | None] = {}

    def answer(self, path: str) -> Answer:
        text = self.texts.get(path.removeprefix("/metrics/"))
        return (500, b"failed") if text is None else (200, text.encode())


@contextmanager
def scraping(
    directory: Path, exporters: str, hosts: list[str], *, honor_labels: bool
) -> Iterator[DcgmSource]:
    """A Prometheus that scrapes the hosts each second, as the operator's own monitor would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    jobs = [
        {
            "job_name": f"dcgm-{number}",
            "honor_labels": honor_labels,
            "metrics_path": f"/metrics/{host}",
            "static_configs": [{"targets": [exporters.removeprefix("http://")], "labels": OWN_POD}],
        }
        for number, host in enumerate(hosts)
    ]
    # JSON is YAML.
    config = directory / "prometheus.yml"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": jobs,
            }
        )
    )
    assert PROGRAM is not None
    process = subprocess.Popen(
        [
            PROGRAM,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    source = DcgmSource(f"http://127.0.0.1:{port}", timeout_seconds=5)
    try:
        yield source
    finally:
        source.close()
        process.terminate()
        process.wait(20)


def until(source: DcgmSource, met: Callable[[DcgmTable], bool]) -> DcgmTable:
    """The first table that is as wanted, read once more: a scrape may come between two of its queries."""
    end = time.monotonic() + PATIENCE_SECONDS
    table = None
    while time.monotonic() < end:
        try:
            table = source.read()
        except SourceError:
            time.sleep(0.1)
            continue
        if met(table):
            table = source.read()
            if met(table):
                return table
        time.sleep(0.2)
    raise AssertionError(f"not seen within {PATIENCE_SECONDS} s: {table and table.places}")


def expose(face: PrometheusFace, host: str) -> str:
    """What a host's exporter gives: the face's series without what Prometheus itself adds."""
    lines = []
    for labels, value in face._all(None):
        if labels.get("Hostname") != host:
            continue
        told = {
            name.removeprefix("exported_"): text
            for name, text in labels.items()
            if name not in TARGET_LABELS
        }
        listed = ",".join(f'{name}="{text}"' for name, text in told.items())
        lines.append(f"{labels['__name__']}{{{listed}}} {value(face._now())!r}")
    return "\n".join(lines) + "\n"


def comparable(table: DcgmTable) -> dict[str, Any]:
    """All that is read, without the moment of the question and the order of the series."""
    order = sorted(range(len(table.keys)), key=lambda place: table.keys[place])
    return {
        "readings": make_readings(table, order),
        "hosts": [table.hosts[place] for place in order],
        "there": [bool(table.is_there[place]) for place in order],
        "xids": np.nan_to_num(table.xids, nan=-1)[order].tolist(),
    }


@pytest.fixture
def simulation() -> Simulation:
    """Two hosts: one GPU works, one has lost itself, one has an XID, one waits for a remap."""
    made = Simulation(
        Options(nodes=2, with_jobs=False), clock=ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    )
    made.schedule.advance(0)
    host = next(iter(made.hosts.by_name.values()))
    made.hosts.allocate(host, PodReference("uid-1", "training", "rank-0"), 1, pid=100)
    for kind, index in (("gpu-lost", 2), ("xid-31", 3), ("remap-pending", 4), ("xid-79", 5)):
        made.faults.inject(host.name, kind, index)
    return made


@pytest.mark.parametrize("honor_labels", [True, False])
def test_what_is_read_is_what_the_simulators_face_gives(
    tmp_path: Path, simulation: Simulation, honor_labels: bool
) -> None:
    face, exporters = PrometheusFace(simulation), Exporters()
    hosts = sorted(simulation.hosts.by_name)
    exporters.texts = {host: expose(face, host) for host in hosts}
    with serving(answer_of_face(face)) as url:
        simulated = DcgmSource(url)
        wanted = simulated.read()
        simulated.close()
    with (
        serving(exporters.answer) as scraped,
        scraping(tmp_path, scraped, hosts, honor_labels=honor_labels) as source,
    ):
        table = until(source, lambda found: set(found.places) == set(hosts))
        assert comparable(table) == comparable(wanted)
        owners = [pod.name for held in table.owners for pod in held]
        assert owners == ["rank-0"], "the exporter's own pod owns nothing"
        for host in hosts:
            age = table.age_of(host)
            assert age is not None
            assert age < 5
        exporters.texts[hosts[0]] = None
        until(source, lambda found: set(found.places) == {hosts[1]})


def test_samples_that_carry_an_old_time_of_their_own_are_seen_to_be_old(
    tmp_path: Path, simulation: Simulation
) -> None:
    """As federation and remote writing leave them: Prometheus answers with them for five minutes."""
    face, exporters = PrometheusFace(simulation), Exporters()
    host = sorted(simulation.hosts.by_name)[1]
    at = int((time.time() - 100) * 1000)
    exporters.texts = {host: "".join(f"{line} {at}\n" for line in expose(face, host).splitlines())}
    with (
        serving(exporters.answer) as scraped,
        scraping(tmp_path, scraped, [host], honor_labels=True) as source,
    ):
        age = until(source, lambda found: host in found.places).age_of(host)
    assert age is not None
    assert 99 < age < 130


def test_a_real_prometheus_reads_the_recorded_exporter(tmp_path: Path) -> None:
    if not CAPTURE.exists():
        pytest.skip(f"{CAPTURE} is missing: the recorded exporter cannot be read")
    exporters = Exporters()
    exporters.texts = {"recorded": CAPTURE.read_text()}
    with (
        serving(exporters.answer) as scraped,
        scraping(tmp_path, scraped, ["recorded"], honor_labels=True) as source,
    ):
        table = until(source, lambda found: "gpu-node-1" in found.places)
    readings = sorted(make_readings(table, range(8)), key=lambda gpu: gpu.index or 0)
    assert [gpu.index for gpu in readings if gpu.allocated_to] == [0]
    assert [gpu.index for gpu in readings if gpu.memory_utilization_ratio is None] == [6, 7]
