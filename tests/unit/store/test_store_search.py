"""The search over all that has a name, on both databases."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from app.store.engine import write
from app.store.reads.rows import table_of
from app.store.reads.search import A_KIND, search
from app.store.tables import Gpu, Incident, Job, Node, Operation, Pod

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UUID = "GPU-5d9c39b4-b82a-5b40-94f8-d0da1958a6c0"


@pytest.fixture
def filled(engine: Engine) -> Engine:
    rows: list[tuple[Any, dict[str, Any]]] = [
        (Node, {"name": f"h100-a-r01-0{number}", "health": "Healthy"}) for number in range(9)
    ]
    rows += [
        (Node, {"name": "a100_r01", "health": "Healthy"}),
        (Gpu, {"uuid": UUID, "node": "h100-a-r01-03", "index": 3, "serial": "1654423002391"}),
        (Job, {"uid": "j1", "namespace": "train", "name": "llama-70b", "kind": "Job", "api_version": "batch/v1",
               "state": "Running", "observed_at": NOW}),
        (Pod, {"uid": "p1", "namespace": "train", "name": "llama-70b-3-x7k2p", "node": "h100-a-r01-03",
               "phase": "Running", "observed_at": NOW}),
        (Pod, {"uid": "p2", "namespace": "train", "name": "llama-70b-4-9dkq2", "node": None, "phase": "Pending",
               "observed_at": NOW}),
        (Incident, {"id": "i1", "scope": "node", "subject": "h100-a-r01-03", "severity": "fatal", "cause": "xid-79",
                    "title": "GPU 3 fell off the bus", "opened_at": NOW, "updated_at": NOW}),
        (Operation, {"id": "o1", "kind": "drain", "subject": "h100-a-r01-03", "author": "ana", "state": "Running",
                     "created_at": NOW, "updated_at": NOW}),
    ]  # fmt: skip
    with write(engine) as connection:
        for model, row in rows:
            instance = model(cluster="c", **row)
            connection.execute(insert(table_of(model)).values(**instance.model_dump()))
    return engine


def found(engine: Engine, words: str) -> list[tuple[str, str]]:
    return [(hit.kind, hit.key) for hit in search(engine, "c", words)]


def test_each_kind_is_found_by_its_name(filled: Engine) -> None:
    assert found(filled, "LLAMA-70B") == [("job", "j1"), ("pod", "h100-a-r01-03"), ("pod", "")]
    assert found(filled, "fell off") == [("incident", "i1")]
    assert ("operation", "o1") in found(filled, "h100-a-r01-03")
    assert ("incident", "i1") in found(filled, "h100-a-r01-03")
    assert found(filled, "j1") == [("job", "j1")]


def test_a_gpu_is_found_by_the_beginning_of_its_uuid_or_serial(filled: Engine) -> None:
    for words in (UUID, "gpu-5d9c", "5d9c39", "16544230"):
        assert ("gpu", "h100-a-r01-03") in found(filled, words), words
    assert found(filled, "b82a-5b40") == []


def test_the_whole_name_comes_first_and_no_kind_crowds_out_another(filled: Engine) -> None:
    assert found(filled, "h100-a-r01-08")[0] == ("node", "h100-a-r01-08")
    nodes = [key for kind, key in found(filled, "r01") if kind == "node"]
    assert len(nodes) == A_KIND


def test_what_sql_would_read_as_a_pattern_is_a_letter(filled: Engine) -> None:
    assert found(filled, "100_r01") == [("node", "a100_r01")]
    assert found(filled, "%%") == []
    assert found(filled, "'; DROP TABLE node; --") == []


@pytest.mark.parametrize("words", ["", " ", "h", " h "])
def test_one_letter_finds_nothing(filled: Engine, words: str) -> None:
    assert found(filled, words) == []
