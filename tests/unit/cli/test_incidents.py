"""Incidents on the command line: the list, one of them, and a person's word on it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.cli.conftest import V1, Ended
from tests.unit.cli.documents import INCIDENT, request

Run = Callable[..., Ended]


def _page(*items: dict) -> tuple[int, dict]:
    return 200, {"items": list(items), "next": None}


def _job(name: str, *, until: str | None = None) -> dict[str, Any]:
    return {
        "uid": name, "namespace": "train", "name": name, "gpus": 256, "ranks": [3], "since": "2026-01-01T00:00:00Z", "until": until,
    }  # fmt: skip


@pytest.fixture
def server(v1: V1) -> V1:
    """A worker that accepts each word on an incident, and knows who calls."""
    v1.on("POST", "requests", lambda asked: (202, request(asked.body["kind"], "pending")))
    v1.on("GET", "whoami", (200, {"username": "ann", "groups": [], "may_read": True, "may_write": True}))  # fmt: skip
    for kind in ("acknowledge", "own", "note", "resolve", "reopen"):
        v1.on("GET", f"requests/r-{kind}", (200, request(kind, "accepted")))
    return v1


def test_the_list_is_in_the_servers_order_and_tells_who_is_hurt_and_what_is_lost(
    v1: V1, pitwall: Run
) -> None:
    two = {**INCIDENT, "id": "i-9", "jobs": [_job("a"), _job("b")], "gpus_hurt": 512, "gpu_hours_lost": 131.72}  # fmt: skip
    none = {**INCIDENT, "id": "i-1", "jobs": [], "gpus_hurt": 0, "severity": "warning", "owner": None,
            "gpu_hours_lost": None, "flapping": True, "certainty": "likely"}  # fmt: skip
    over = {**INCIDENT, "id": "i-0", "jobs": [_job("a", until="2026-01-01T01:00:00Z")], "gpus_hurt": 0, "owner": None,
            "acknowledged_by": "ben", "resolved_at": "2026-01-01T02:00:00Z"}  # fmt: skip
    v1.on("GET", "incidents", _page(two, none, over))
    ended = pitwall("incidents", "--all", url=v1.url)
    assert ended.code == 0
    title, *lines = ended.out.splitlines()
    assert title.split() == ["ID", "SEVERITY", "HURT", "LOST-GPU-H", "SINCE", "WITH", "FLAGS", "WHAT"]  # fmt: skip
    assert [line.split()[0] for line in lines] == ["i-9", "i-1", "i-0"]
    assert "2 jobs, 512 GPUs" in lines[0]
    assert "131.7" in lines[0]
    assert lines[0].index("ann") == title.index("WITH")
    assert "no job" in lines[1]
    assert "flapping,likely" in lines[1]
    assert "no job" in lines[2]  # what was hurt is well again
    assert "seen by ben" in lines[2]
    assert "resolved" in lines[2]
    assert v1.asked[0].params["open_only"] == "false"
    wide = pitwall("incidents", "-o", "wide", url=v1.url).out
    assert "DO-FIRST" in wide
    assert "Drain the node" in wide


def test_one_incident_tells_the_first_failure_apart_from_what_followed_it(
    v1: V1, pitwall: Run
) -> None:
    document = _detail()
    v1.on("GET", "incidents/i-1", (200, document))
    ended = pitwall("incident", "i-1", url=v1.url)
    assert ended.code == 0
    text = ended.out
    order = [text.index(part) for part in ("First failure:", "What followed it:", "Why it is thought so:", "Findings:", "Timeline:")]  # fmt: skip
    assert order == sorted(order)
    first, followed = text[order[0] : order[1]], text[order[1] : order[2]]
    for part in ("n1", "GPU-1", "(XID 79)", "train/llm", "llm-3-x", "Rank     3"):
        assert part in first
    assert "+4s" in followed
    assert "NCCL WARN on rank 17" in followed
    assert "+4s" not in first
    for part in ("Do first", "Drain the node", "1 job, 256 GPUs", "12.5 GPU-hours", "Part of", "incident i-7"):  # fmt: skip
        assert part in text
    assert "looking at it" in text[order[4] :]
    assert json.loads(pitwall("incident", "i-1", "-o", "json", url=v1.url).out) == document


def test_a_long_tail_of_consequences_is_cut_and_counted(v1: V1, pitwall: Run) -> None:
    document = _detail()
    document["incident"]["consequences"] *= 200
    v1.on("GET", "incidents/i-1", (200, document))
    out = pitwall("incident", "i-1", url=v1.url).out
    assert out.count("NCCL WARN") == 30
    assert "and 170 more: -o json writes all" in out


def test_an_incident_of_the_first_issues_server_and_hostile_text_are_shown(
    v1: V1, pitwall: Run
) -> None:
    """Fields that a server does not send yet have their defaults; what steers a terminal is no letter."""
    bare = {key: value for key, value in INCIDENT.items() if key not in {"first", "nodes", "gpu_hours_lost"}}  # fmt: skip
    bare["title"] = "x\x1b[2Jy"
    v1.on("GET", "incidents/i-1", (200, {"incident": bare, "timeline": []}))
    ended = pitwall("incident", "i-1", url=v1.url)
    assert ended.code == 0
    assert "x?[2Jy" in ended.out
    assert "First failure" not in ended.out
    assert "not known" in ended.out


def test_a_word_on_an_incident_is_asked_and_its_answer_awaited(server: V1, pitwall: Run) -> None:
    for words in (
        ("acknowledge", "i-1"),
        ("own", "i-1"),
        ("own", "i-1", "--owner", "ben"),
        ("note", "i-1", "--text", "cable is loose"),
        ("resolve", "i-1", "--reason", "reseated"),
        ("reopen", "i-1", "--text", "again"),
    ):
        ended = pitwall(*words, url=server.url)
        assert (ended.code, ended.err) == (0, "")
        assert "accepted" in ended.out
    assert [(body["kind"], body["parameters"]) for body in server.posted()] == [
        ("acknowledge", {"incident_id": "i-1"}),
        ("own", {"incident_id": "i-1", "owner": "ann"}),
        ("own", {"incident_id": "i-1", "owner": "ben"}),
        ("note", {"incident_id": "i-1", "text": "cable is loose"}),
        ("resolve", {"incident_id": "i-1", "text": "reseated"}),
        ("reopen", {"incident_id": "i-1", "text": "again"}),
    ]
    answer = json.loads(pitwall("acknowledge", "i-1", "-o", "json", url=server.url).out)
    assert answer == request("acknowledge", "accepted")


@pytest.mark.parametrize("kind", ["note", "resolve", "reopen"])
@pytest.mark.parametrize("words", [(), ("--text", "  ")])
def test_words_that_are_missing_are_bad_use_and_nothing_is_asked(
    server: V1, pitwall: Run, kind: str, words: tuple[str, ...]
) -> None:
    assert pitwall(kind, "i-1", *words, url=server.url).code == 2
    assert server.posted() == []


@pytest.mark.parametrize(
    ("code", "exit_code"), [("not_found", 1), ("conflict", 1), ("forbidden", 1), ("invalid", 2)]
)
def test_a_refusal_is_the_sentence_it_is_and_an_exit_code(
    server: V1, pitwall: Run, code: str, exit_code: int
) -> None:
    said = "Incident i-1 is still fed by 2 open findings."
    refused = request("resolve", "refused", refusal=said, refusal_code=code)
    server.on("GET", "requests/r-resolve", (200, refused))
    ended = pitwall("resolve", "i-1", "--text", "done", url=server.url)
    assert ended.code == exit_code
    assert ended.err == f"pitwall: Resolve was refused: {said}\n"


def _detail() -> dict[str, Any]:
    first = {"at": "2026-01-01T00:00:00Z", "node": "n1", "gpu_uuid": "GPU-1", "gpu_index": 3, "rule": "xid-79", "xid": 79,
             "message": "GPU has fallen off the bus", "job": "train/llm", "rank": 3, "pod": "llm-3-x"}  # fmt: skip
    followed = {"at": "2026-01-01T00:00:04Z", "kind": "job-interrupted", "node": "n2", "gpu_uuid": None, "job": "train/llm", "rank": 17,
                "message": "NCCL WARN on rank 17"}  # fmt: skip
    return {
        "incident": {
            **INCIDENT, "jobs": [_job("llm")], "gpus_hurt": 256, "gpu_hours_lost": 12.5, "first": first, "consequences": [followed],
            "evidence": [{"at": "2026-01-01T00:00:00Z", "source": "agent", "text": "the kernel log says so"}], "merged_into": "i-7",
        },
        "timeline": [{"at": "2026-01-01T00:01:00Z", "kind": "note", "author": "ann", "message": "looking at it"}],
        "findings": [{"episode": "e", "node": "n1", "gpu_uuid": "GPU-1", "rule": "xid-79", "severity": "fatal", "message": "gone",
                      "action": "Drain", "xid": 79, "opened_at": "2026-01-01T00:00:00Z", "closed_at": None}],
    }  # fmt: skip
