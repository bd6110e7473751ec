"""Pause, approve, undo and the rest, and drains of many: what is asked of /v1, and how it ends."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.cli.conftest import V1, Asked, Ended
from tests.unit.cli.documents import PLAN, operation, request

Run = Callable[..., Ended]
APPROVAL = {
    "plan_hash": "cafe01",
    "gpus": 128,
    "asked_by": "ada",
    "expires_at": "2999-01-01T00:00:00+00:00",
    "message": "It stops 128 GPUs, more than 64: a second person must approve plan cafe01.",
}
AWAITING = {"approval": APPROVAL, "plan": PLAN}


@pytest.fixture
def server(v1: V1) -> V1:
    """A worker that answers previews with PLAN and accepts the rest, opening op-1 where one is opened."""

    def post(asked: Asked) -> tuple[int, Any]:
        return 202, request(asked.body["kind"], "pending")

    v1.on("POST", "requests", post)
    v1.on("GET", "requests/r-preview", (200, request("preview", "answered", answer=PLAN)))
    for kind in ("pause", "unpause", "reset_limit"):
        v1.on("GET", f"requests/r-{kind}", (200, request(kind, "accepted")))
    for kind in ("drain", "undo", "approve"):
        v1.on("GET", f"requests/r-{kind}", (200, request(kind, "accepted", operation_id="op-1")))
    v1.on("GET", "operations/op-1", (200, operation("Succeeded", ended=True)))
    return v1


@pytest.mark.parametrize(
    ("words", "kind", "parameters"),
    [
        (("pause",), "pause", {}),
        (("unpause",), "unpause", {}),
        (("reset-limit", "rate"), "reset_limit", {"limit": "rate"}),
    ],
)
def test_a_standing_word_is_asked_with_its_reason(
    server: V1, pitwall: Run, words: tuple[str, ...], kind: str, parameters: dict
) -> None:
    ended = pitwall(*words, "--reason", "a storm", url=server.url)
    assert ended.code == 0
    assert [(body["kind"], body["parameters"]) for body in server.posted()] == [
        (kind, {**parameters, "text": "a storm"})
    ]
    assert pitwall(*words, "--reason", " ", url=server.url).code == 2
    assert len(server.posted()) == 1


def test_a_drain_names_racks_blocks_an_incident_modes_and_typed_words(
    server: V1, pitwall: Run
) -> None:
    ended = pitwall(
        *("drain", "--rack", "r1", "--rack", "r2", "--block", "b1", "--incident", "i1"),
        *("--mode", "checkpoint", "--mode", "train/llm=deadline", "--deadline", "2h"),
        *("--confirm-protected", "llm", "--past-limits", "stock", "--reason", "x", "--yes"),
        url=server.url,
    )
    assert ended.code == 0, ended
    asked = server.posted()[-1]["parameters"]
    assert {key: value for key, value in asked.items() if value} == {
        "racks": ["r1", "r2"],
        "blocks": ["b1"],
        "incident": "i1",
        "mode": "checkpoint",
        "modes": {"train/llm": "deadline"},
        "deadline_seconds": 7200.0,
        "accept_protected": "llm",
        "past_limits": "stock",
        "plan_hash": PLAN["hash"],
    }


@pytest.mark.parametrize(
    "words",
    [
        ("drain",),
        ("drain", "a", "--mode", "train/llm=later"),
        ("drain", "a", "--mode", "train/llm=deadline"),
        ("drain", "a", "--mode", "train/llm=complete", "--deadline", "2h"),
    ],
)
def test_a_drain_that_makes_no_sense_asks_nothing(
    server: V1, pitwall: Run, words: tuple[str, ...]
) -> None:
    assert pitwall(*words, "--reason", "x", "--yes", url=server.url).code == 2
    assert server.posted() == []


def test_a_drain_that_waits_for_a_second_person_says_so(server: V1, pitwall: Run) -> None:
    awaiting = request("drain", "awaiting_approval", answer=AWAITING)
    server.on("GET", "requests/r-drain", (200, awaiting))
    ended = pitwall("drain", "a", "--reason", "x", "--yes", url=server.url)
    assert ended.code == 0
    assert "a second person must approve" in ended.out


def test_waiting_waits_for_the_approval_too(server: V1, pitwall: Run) -> None:
    awaiting = request("drain", "awaiting_approval", answer=AWAITING)
    accepted = request("drain", "accepted", operation_id="op-1", answer=AWAITING)
    server.on("GET", "requests/r-drain", (200, awaiting), (200, awaiting), (200, accepted))
    assert pitwall("drain", "a", "--reason", "x", "--yes", "--wait", url=server.url).code == 0
    expired = request("drain", "refused", refusal="Nobody approved", answer=AWAITING)
    server.on("GET", "requests/r-drain", (200, awaiting), (200, expired))
    refused = pitwall("drain", "a", "--reason", "x", "--yes", "--wait", url=server.url)
    assert refused.code == 1
    assert "Nobody approved" in refused.err


def test_an_approval_shows_the_plan_and_binds_to_its_hash(server: V1, pitwall: Run) -> None:
    server.on("GET", "requests/q1", (200, request("drain", "awaiting_approval", answer=AWAITING)))
    ended = pitwall("approve", "q1", "--yes", url=server.url)
    assert ended.code == 0, ended
    assert "12.5 GPU-hours at stake" in ended.out
    assert server.posted()[-1]["kind"] == "approve"
    assert server.posted()[-1]["parameters"]["plan_hash"] == "cafe01"
    before = len(server.posted())
    assert pitwall("approve", "q1", "--yes", "--plan", "beef02", url=server.url).code == 1
    assert len(server.posted()) == before


def test_what_waits_is_listed_and_what_does_not_wait_is_not_approved(
    server: V1, pitwall: Run
) -> None:
    server.on("GET", "requests/q1", (200, request("drain", "accepted")))
    ended = pitwall("approve", "q1", "--yes", url=server.url)
    assert (ended.code, server.posted()) == (1, [])
    waits = {"request_id": "q1", "kind": "drain", "subject": "a", "gpus": 128}
    server.on("GET", "status", (200, {"approvals": [waits]}))
    assert json.loads(pitwall("approve", "-o", "json", url=server.url).out) == [waits]


def test_undo_of_what_has_ended_waits_for_the_uncordon(server: V1, pitwall: Run) -> None:
    ended = pitwall("undo", "op-1", "--wait", url=server.url)
    assert ended.code == 0, ended
    assert server.posted()[-1]["parameters"] == {"operation_id": "op-1"}
