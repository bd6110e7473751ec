"""What a poll of dcgm-exporter's series costs: turning JSON into columns, and judging 350,000 GPUs."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from collectors.dcgm_columns import TableBuilder
from collectors.dcgm_desk import DcgmDesk
from collectors.garbage import collector_paused
from collectors.prometheus import KEY_LABELS
from tests.benchmarks.dcgm_cluster import ADDED, METRICS, build, labels_of, vector_text, words_of
from tests.benchmarks.figures import Figures

GPUS = 350_000
POLLS = 4
READ_GPUS = 50_000
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_judging_a_poll_of_350000_gpus_costs_under_two_seconds_of_a_core() -> None:
    figures = Figures("judge dcgm-exporter's series, 350,000 GPUs")
    labels = [labels_of(number) for number in range(GPUS)]
    words = words_of(GPUS)
    desk = DcgmDesk()
    seconds, found, xids = [], 0, 0
    for poll in range(POLLS):
        table = build(GPUS, labels, poll).build()
        begun = time.process_time()
        verdicts = desk.take(
            table, words=words, now=START + timedelta(seconds=15 * poll), silence_seconds=45.0
        )
        seconds.append(time.process_time() - begun)
        found = sum(len(verdict.findings) for verdict in verdicts.values())
        xids += sum(len(verdict.xids) for verdict in verdicts.values())
        assert len(verdicts) == GPUS // 8
    assert found == desk.open_count
    # Remaps that wait, links that replay (20 a poll: over 31 a minute from the second on), and XIDs.
    assert found >= GPUS // 700 + GPUS // 500 + xids - POLLS
    figures.add("first poll, CPU", seconds[0], "s", at_most=2.0)
    figures.add("steady poll, CPU (worst)", max(seconds[1:]), "s", at_most=2.0)
    figures.add("open findings", found, "")
    figures.check()


def test_what_it_costs_to_turn_prometheus_answers_into_columns() -> None:
    figures = Figures("read dcgm-exporter's series, per million samples")
    builder = TableBuilder()
    # As DcgmSource reads.
    with collector_paused():
        whole = _read(builder, METRICS[:1], names=None)
        short = _read(builder, METRICS[1:6], names=KEY_LABELS.split(", "))
    assert len(builder.build().keys) == READ_GPUS
    for told, cost in (("all labels", whole), ("labels that find the GPU", short)):
        figures.add(f"JSON, {told}", cost.megabytes, "MB")
        figures.add(f"JSON as prometheus-api-client reads it, {told}, CPU", cost.json_seconds, "s")
        figures.add(f"vectors to columns, {told}, CPU", cost.columns_seconds, "s")
    # The first metric with all labels; the others, and the times of the samples, with few.
    polled = GPUS / 1e6
    metrics = len((*METRICS, *ADDED))
    seconds = polled * (whole.json_seconds + whole.columns_seconds)
    seconds += polled * metrics * (short.json_seconds + short.columns_seconds)
    figures.add(f"a poll of 350,000 GPUs with {metrics} metrics, read, CPU", seconds, "s")
    figures.check()


@dataclass(frozen=True)
class Cost:
    """Of a million samples: CPU seconds, and what came over the wire."""

    megabytes: float
    json_seconds: float
    columns_seconds: float


def _read(builder: TableBuilder, metrics: tuple[str, ...], *, names: list[str] | None) -> Cost:
    size, parsed, built = 0, 0.0, 0.0
    for metric in metrics:
        body = vector_text(metric, READ_GPUS, names=names)
        size += len(body)
        begun = time.process_time()
        vector = json.loads(body)["data"]["result"]
        read_at = time.process_time()
        builder.add(metric, vector, named=names is not None)
        built += time.process_time() - read_at
        parsed += read_at - begun
    millions = READ_GPUS * len(metrics) / 1e6
    return Cost(size / millions / 1e6, parsed / millions, built / millions)
