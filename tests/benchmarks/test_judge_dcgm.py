"""What a poll of dcgm-exporter's series costs: turning JSON into columns, and judging 350,000 GPUs."""

import json
import time
from datetime import UTC, datetime, timedelta

from collectors.dcgm_columns import TableBuilder
from collectors.dcgm_desk import DcgmDesk
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
    parsed = built = size = 0.0
    builder = TableBuilder()
    chosen = METRICS[:6]
    for metric in chosen:
        body = vector_text(metric, READ_GPUS)
        size += len(body)
        begun = time.process_time()
        vector = json.loads(body)["data"]["result"]
        parsed += time.process_time() - begun
        begun = time.process_time()
        builder.add(metric, vector)
        built += time.process_time() - begun
    begun = time.process_time()
    assert len(builder.build().keys) == READ_GPUS
    built += time.process_time() - begun
    millions = READ_GPUS * len(chosen) / 1e6
    figures.add("JSON, as prometheus-api-client reads it, CPU", parsed / millions, "s")
    figures.add("vectors to columns, CPU", built / millions, "s")
    figures.add("JSON", size / millions / 1e6, "MB")
    whole = (parsed + built) / millions * GPUS * len((*METRICS, *ADDED)) / 1e6
    figures.add("350,000 GPUs with 20 metrics, CPU", whole, "s")
    figures.check()
