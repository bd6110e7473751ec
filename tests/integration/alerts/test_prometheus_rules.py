"""Metrics of all counts, held to the store; our rules in a real Prometheus, to a real Alertmanager, to a receiver."""

import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from alertmanagers import BINARY, alertmanagers, free_port
from office import CLUSTER, Office, exposition, until
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from receiving import http_receiver
from sqlalchemy import insert

from app.ingest.store_metrics import StoreMetrics
from app.store.engine import write
from app.store.reads.rows import table_of
from app.store.reads.status import status
from app.store.tables import SourceStatus
from tests.browser.seed import seed
from tests.prometheus_servers import serving

RULES = Path(__file__).parents[3] / "k8s" / "manifests" / "prometheus-rules"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None or BINARY is None,
    reason="prometheus and prometheus-alertmanager are not installed (Debian's packages of these names)",
)


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_count_is_the_stores(office: Office, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'seeded.db'}"
    seed(url, 64)
    seeded = Office.__new__(Office)
    seeded.__init__(_engine(url), url)  # type: ignore[misc]
    found = values(exposition(seeded, "default"))
    counts = status(seeded.engine, "default", seeded.clock()).counts
    for name, count in counts.nodes_by_health.items():
        assert found[("pitwall_nodes_by_health", (name,))] == count
    for name, count in counts.nodes_by_service.items():
        assert found[("pitwall_nodes_by_service", (name,))] == count
    assert found[("pitwall_jobs_at_risk", ())] == counts.jobs_at_risk
    assert found[("pitwall_gpus_free", ())] == counts.gpus_free
    assert (
        sum(v for (name, _), v in found.items() if name == "pitwall_incidents_open")
        == counts.incidents_open
    )
    assert (
        sum(v for (name, _), v in found.items() if name == "pitwall_operations_open")
        == counts.operations_open
    )
    assert found[("pitwall_source_up", ("prometheus",))] == 0
    seeded.engine.dispose()


def _engine(url: str) -> Any:
    from app.store.engine import open_store

    return open_store(url)


def test_alerts_deliveries_and_the_lease_are_counted(office: Office) -> None:
    office.alert("NodeIncident", node="n1")
    office.alert("NodeIncident", node="n2")
    office.deliver("hook")
    office.pass_time(seconds=90)
    found = values(exposition(office))
    assert found[("pitwall_alerts_open", ("NodeIncident", "critical", "firing"))] == 2
    assert found[("pitwall_deliveries", ("hook", "pending"))] == 1
    assert 89 <= found[("pitwall_delivery_lag_seconds", ())] <= 95
    assert found[("pitwall_worker_lease_age_seconds", ())] < 2


def test_a_store_that_can_not_be_read_gives_no_number_at_all(
    office: Office, tmp_path: Path
) -> None:
    from app.store.engine import open_store

    broken = Office.__new__(Office)
    broken.engine, broken.offset_seconds = (
        open_store(f"sqlite:///{tmp_path / 'none' / 'x.db'}"),
        0.0,
    )
    assert exposition(broken) == ""


def test_a_scrape_costs_little_and_the_next_within_seconds_nothing(office: Office) -> None:
    registry = CollectorRegistry()
    registry.register(StoreMetrics(office.engine, CLUSTER, now=office.clock))
    begun = time.perf_counter()
    generate_latest(registry)
    first, begun = time.perf_counter() - begun, time.perf_counter()
    for _ in range(10):
        generate_latest(registry)
    assert (time.perf_counter() - begun) / 10 < first


def test_the_operators_object_holds_the_same_rules() -> None:
    plain = yaml.safe_load((RULES / "rules.yaml").read_text())
    wrapped = yaml.safe_load((RULES / "prometheusrule.yaml").read_text())
    assert wrapped["spec"] == plain
    rules = [rule for group in plain["groups"] for rule in group["rules"]]
    assert all("summary" in rule["annotations"] for rule in rules)
    assert len({rule["alert"] for rule in rules}) == len(rules)


@needs_prometheus
def test_promtool_takes_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    check = subprocess.run(
        [PROMTOOL, "check", "rules", RULES / "rules.yaml"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr
    series = {
        "PitwallNoActiveWorker": ("pitwall_worker_lease_age_seconds", 300, 2),
        "PitwallSourceSilent": ('pitwall_source_up{source="agents"}', 0, 3),
        "PitwallLimitTripped": ('pitwall_limit_tripped{limit="stock"}', 1, 1),
        "PitwallDeliveriesDead": ('pitwall_deliveries{receiver="hook",state="dead"}', 2, 1),
        "PitwallJobsAtRisk": ("pitwall_jobs_at_risk", 1, 2),
        "PitwallOperationBlocked": ('pitwall_operations_open{kind="drain",state="Blocked"}', 1, 2),
    }
    tests = [
        {
            "interval": "30s",
            "input_series": [{"series": metric, "values": f"{value}x20"}, {"series": "pitwall_paused", "values": "0x20"}],
            "alert_rule_test": [
                {"eval_time": f"{minutes}m30s", "alertname": name, "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}]}
            ],
        }
        for name, (metric, value, minutes) in series.items()
        for labels, annotations in [_expected(name)]
    ]  # fmt: skip
    quiet = {
        "interval": "30s",
        "input_series": [{"series": metric, "values": f"{good}x20"} for metric, good in (
            ("pitwall_worker_lease_age_seconds", 2), ('pitwall_source_up{source="agents"}', 1), ("pitwall_jobs_at_risk", 0))],
        "alert_rule_test": [{"eval_time": "8m", "alertname": name, "exp_alerts": []} for name in (*series, "PitwallGone")],
    }  # fmt: skip
    file = tmp_path / "test.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES / "rules.yaml")], "tests": [*tests, quiet]})
    )
    done = subprocess.run([PROMTOOL, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _expected(name: str) -> tuple[dict[str, str], dict[str, str]]:
    (rule,) = [
        rule
        for group in yaml.safe_load((RULES / "rules.yaml").read_text())["groups"]
        for rule in group["rules"]
        if rule["alert"] == name
    ]
    own = {
        "PitwallSourceSilent": {"source": "agents"}, "PitwallLimitTripped": {"limit": "stock"},
        "PitwallDeliveriesDead": {"receiver": "hook"}, "PitwallOperationBlocked": {"kind": "drain"},
    }.get(name, {})  # fmt: skip
    filled = {
        "PitwallNoActiveWorker": "5m 0s", "PitwallDeliveriesDead": "2", "PitwallJobsAtRisk": "1", "PitwallOperationBlocked": "1",
    }.get(name, "")  # fmt: skip
    annotations = {}
    for key, text in rule["annotations"].items():
        for label, value in own.items():
            text = text.replace(f"{{{{ $labels.{label} }}}}", value)
        text = text.replace("{{ $value | humanizeDuration }}", filled).replace(
            "{{ $value }}", filled
        )
        annotations[key] = text
    return {**rule["labels"], **own}, annotations


@needs_prometheus
def test_a_real_prometheus_tells_a_real_alertmanager_of_what_the_store_counts(
    office: Office, tmp_path: Path
) -> None:
    now = office.clock()
    with write(office.engine) as connection:
        connection.execute(
            insert(table_of(SourceStatus)).values(
                cluster=CLUSTER, source="agents", state="blind", message="", last_ok_at=now - timedelta(minutes=5), updated_at=now
            )
        )  # fmt: skip
    office.deliver("hook")
    fast = (
        (RULES / "rules.yaml")
        .read_text()
        .replace("for: 2m", "for: 1s")
        .replace("for: 1m", "for: 1s")
    )
    (tmp_path / "rules.yaml").write_text(fast)
    with (
        http_receiver() as hook,
        alertmanagers(tmp_path, f"http://{hook.url}/am") as (manager,),
        serving(lambda _path: (200, exposition(office).encode())) as scraped,
        _prometheus(tmp_path, scraped, manager.url),
    ):

        def told() -> set[str]:
            return {a["labels"]["alertname"] for h in hook.heard for a in (h.document or {}).get("alerts", ()) if a["status"] == "firing"}  # fmt: skip

        until(
            lambda: {"PitwallWatchdog", "PitwallSourceSilent"} <= told(),
            "the rules fire",
            seconds=25,
        )
        with write(office.engine) as connection:
            table = table_of(SourceStatus)
            connection.execute(table.update().values(state="ok", updated_at=office.clock()))
        until(
            lambda: any(a["labels"]["alertname"] == "PitwallSourceSilent" and a["status"] == "resolved" for h in hook.heard for a in (h.document or {}).get("alerts", ())),
            "it is resolved once the source is heard",
            seconds=25,
        )  # fmt: skip
        assert "PitwallNoActiveWorker" not in told()


class _prometheus:  # noqa: N801  reads as the function it is used as
    """A Prometheus that scrapes one address each second."""

    def __init__(self, folder: Path, scraped: str, manager: str) -> None:
        self._folder, self._port = folder / "prometheus", free_port()
        self._folder.mkdir()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yaml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager.removeprefix("http://")]}]}]},
            "scrape_configs": [{"job_name": "pitwall", "static_configs": [{"targets": [scraped.removeprefix("http://")]}]}],
        }  # fmt: skip
        (self._folder / "config.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> "_prometheus":
        assert PROMETHEUS is not None
        log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={self._folder / 'config.yml'}", f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address=127.0.0.1:{self._port}", "--rules.alert.resend-delay=2s"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        log.close()
        until(self._is_ready, "Prometheus is ready", seconds=30)
        return self

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


@needs_prometheus
def test_critical_and_fatal_incidents_of_a_scope_are_one_alert(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    said = "2 open incidents of scope node are critical or fatal."
    case = {
        "rule_files": [str(RULES / "rules.yaml")],
        "tests": [
            {
                "interval": "30s",
                "input_series": [
                    {
                        "series": f'pitwall_incidents_open{{severity="{severity}",scope="node"}}',
                        "values": "1x20",
                    }
                    for severity in ("critical", "fatal")
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "2m",
                        "alertname": "PitwallIncident",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical", "scope": "node"},
                                "exp_annotations": {
                                    "summary": said,
                                    "action": "See pitwall incidents.",
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "case.yml").write_text(yaml.safe_dump(case))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(tmp_path / "case.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
