"""Checkpoints that a site tells by a metric: read over Prometheus's protocol, laid over what annotations say."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster_builders import at, job, node, pod, stamp, view

from app.operations.stake import CHECKPOINT_ANNOTATION, checkpoint_of, stake_of
from app.settings import Settings
from app.worker_checkpoints import KEPT, CheckpointMetric, read_checkpoints
from tests.prometheus_servers import serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def series(value: object, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [NOW.timestamp(), str(value)]}


def test_the_newest_time_of_each_workload_counts() -> None:
    said = read_checkpoints(
        [
            series(NOW.timestamp() - 600, namespace="t", job_name="llm"),
            series(NOW.timestamp() - 60, namespace="t", job_name="llm", rank="3"),
            series(NOW.timestamp() - 30, exported_namespace="u", exported_job="x", job="trainer"),
        ],
        NOW,
    )
    assert said == {
        ("t", "llm"): NOW - timedelta(seconds=60),
        ("u", "x"): NOW - timedelta(seconds=30),
    }


@pytest.mark.parametrize(
    "value", ["NaN", "+Inf", "soon", "1e30", "-5", "12", str(NOW.timestamp() + 3600)]
)
def test_what_is_no_time_of_a_checkpoint_is_left_out(value: str) -> None:
    assert read_checkpoints([series(value, namespace="t", job_name="llm")], NOW) == {}
    assert read_checkpoints([{"metric": {}}, series(NOW.timestamp())], NOW) == {}


def test_prometheus_is_asked_and_its_silence_keeps_the_last_answer_for_a_while() -> None:
    found = [series(NOW.timestamp() - 60, namespace="t", job_name="llm")]
    clock = [NOW]
    up = [True]

    def answer(path: str) -> tuple[int, bytes]:
        assert "checkpoint_seconds" in path
        data = {"resultType": "vector", "result": found}
        return (
            (200, json.dumps({"status": "success", "data": data}).encode())
            if up[0]
            else (503, b"{}")
        )

    with serving(answer) as url:
        settings = Settings(
            _env_file=None,
            prometheus_url=url,
            checkpoint_metric="max by (namespace, job_name) (checkpoint_seconds)",
        )
        metric = CheckpointMetric(settings, clock=lambda: clock[0])
        empty = view()
        assert metric.over(empty) is empty
        assert metric.tick() == 1
        assert metric.over(empty).told_checkpoints == {("t", "llm"): NOW - timedelta(seconds=60)}
        up[0] = False
        clock[0] = NOW + timedelta(minutes=5)
        assert metric.tick() == 0
        assert metric.over(empty).told_checkpoints
        clock[0] = NOW + KEPT + timedelta(seconds=1)
        assert metric.over(empty) is empty


def test_without_an_expression_nothing_is_asked() -> None:
    metric = CheckpointMetric(
        Settings(_env_file=None, prometheus_url="http://127.0.0.1:9"), clock=lambda: NOW
    )
    assert metric.tick() == 0


def test_the_newer_of_annotation_and_metric_counts_in_the_preview() -> None:
    seen = gang_view()
    (workload,) = seen.workloads.values()
    key = (workload.namespace, workload.name)
    told = replace(seen, told_checkpoints={key: at(-120)})
    pods = list(told.pods_of(workload.uid))
    stake = stake_of(workload, pods, view=told, now=at(0))
    assert stake.checkpoint_at == at(-120)
    assert "since its checkpoint" in stake.basis
    annotated = gang_view(at(-60))
    for metric, newest in ((-120, -60), (-30, -30)):
        found = checkpoint_of(
            workload.uid, replace(annotated, told_checkpoints={key: at(metric)}), ()
        )
        assert found is not None
        assert found.at == at(newest)


def gang_view(checkpoint_at: datetime | None = None) -> Any:
    notes = {CHECKPOINT_ANNOTATION: stamp(checkpoint_at)} if checkpoint_at else {}
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    return view(node("a"), node("b"), job(annotations=notes), *pods)
