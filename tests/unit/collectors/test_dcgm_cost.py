"""Judging stays cheap: a tenth of the largest fleet within a tenth of its two seconds (tests/benchmarks)."""

import gc
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from collectors.dcgm_desk import DcgmDesk
from tests.benchmarks.dcgm_cluster import build, labels_of, words_of

GPUS = 35_000
WHOLE_GPUS, WHOLE_SECONDS = 350_000, 2.0


@pytest.fixture
def own_garbage_alone() -> Iterator[None]:
    """What thousands of other tests left in this process is not walked by the collector meanwhile."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("own_garbage_alone")
def test_a_poll_of_35000_gpus_is_judged_within_its_share_of_two_seconds() -> None:
    labels = [labels_of(number) for number in range(GPUS)]
    words, desk = words_of(GPUS), DcgmDesk()
    start = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    seconds = []
    for poll in range(3):
        table = build(GPUS, labels, poll).build()
        begun = time.process_time()
        verdicts = desk.take(
            table, words=words, now=start + timedelta(seconds=15 * poll), silence_seconds=45.0
        )
        seconds.append(time.process_time() - begun)
        assert len(verdicts) == GPUS // 8
    print(f"{GPUS} GPUs judged in {[round(one, 3) for one in seconds]} s of a core")
    assert min(seconds[1:]) < WHOLE_SECONDS * GPUS / WHOLE_GPUS
    assert seconds[0] < 2 * WHOLE_SECONDS * GPUS / WHOLE_GPUS, "the first poll, once a start"
    assert desk.open_count >= GPUS // 700
