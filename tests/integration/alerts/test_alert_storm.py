"""10,000 findings on 200 nodes through the real store, outbox and HTTP: what a person gets, when, and that nothing is lost."""

import time
from collections import Counter
from pathlib import Path

import pytest
from house import House
from office import CLUSTER, Office
from receiving import HttpReceiver, http_receiver
from sqlalchemy import func, select

from app.store.engine import read
from app.store.reads import alerts as reads
from app.store.reads.rows import table_of
from app.store.tables import Finding

NODES = tuple(f"h100-{number:03}" for number in range(200))
FINDINGS_A_NODE = 50
OF_EACH = 'group_by = ["..."]'


def storm(house: House) -> float:
    """Every node finds 50 faults, told in five reports; the monotonic second when the first was given to the store."""
    house.say(*NODES)
    house.turn()
    begun = time.monotonic()
    for found in range(10, FINDINGS_A_NODE + 1, 10):
        house.faults = {
            node: tuple(f"e{number}-{node}" for number in range(found)) for node in NODES
        }
        house.say(*NODES)
        house.desk.tick()
        while house.deliveries.tick():
            pass
    return begun


def incidents(house: House) -> int:
    found = reads.alerts(house.office.engine, CLUSTER, limit=1000)
    return len({one.incident_id for one in found if one.incident_id})


@pytest.mark.parametrize(
    ("grouping", "most"),
    [("", 10), (OF_EACH, len(NODES))],
    ids=["grouped by default", "a message of each incident"],
)
def test_a_storm_is_told_by_incident_and_not_by_finding(
    office: Office,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    grouping: str,
    most: int,
) -> None:
    with http_receiver() as hook:
        house = House(office, tmp_path, hook, f"group_wait_seconds = 0\n{grouping}")
        begun = storm(house)
        took = sorted(heard.at - begun for heard in hook.heard)
        for _ in range(6):
            house.turn(301, *NODES)
        with read(office.engine) as connection:
            findings = connection.scalar(select(func.count()).select_from(table_of(Finding)))
        p99 = took[int(len(took) * 0.99)] if took else float("inf")
        with capsys.disabled():
            print(
                f"\n{findings} findings on {len(NODES)} nodes: {incidents(house)} incidents, "
                f"{len(hook.heard)} messages to a person in half an hour ({grouping or 'default groups'}); "
                f"from the first finding to the message P99 {p99:.1f} s without group wait"
            )
        assert findings == len(NODES) * FINDINGS_A_NODE
        assert incidents(house) <= len(NODES)
        assert 1 <= len(hook.heard) <= most
        assert p99 < 10


def test_a_storm_while_the_receiver_is_down_for_an_hour_is_told_whole_and_once(
    office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str], hook: HttpReceiver
) -> None:
    hook.always = (503, {})
    house = House(office, tmp_path, hook, f"group_wait_seconds = 0\n{OF_EACH}")
    storm(house)
    for _ in range(12):
        house.turn(300, *NODES)
    refused = len(hook.heard)
    hook.always = (200, {})
    for _ in range(5):
        house.turn(300, *NODES)
    taken = [heard for heard in hook.heard if heard.status == 200]
    keys = Counter(heard.headers["Idempotency-Key"] for heard in taken)
    told = " ".join(heard.document["title"] for heard in taken)
    with capsys.disabled():
        print(
            f"\nAn hour without the receiver: {refused} tries refused, then {len(taken)} messages, "
            f"{sum(keys.values()) - len(keys)} of them twice"
        )
    assert refused, "it was tried meanwhile"
    assert [node for node in NODES if node not in told] == [], "nothing is lost"
    assert max(keys.values()) == 1, "nothing is doubled"
