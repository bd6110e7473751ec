"""Drains and the like against a server that speaks /v1: what is asked, what is said, how it ends."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.cli.api import ATTEMPTS, Api
from app.cli.outcome import CommandFailed
from app.settings import Settings
from app.store.records import RequestRecord
from tests.unit.cli.conftest import V1, Asked, Ended
from tests.unit.cli.documents import PLAN, operation, request

Run = Callable[..., Ended]
DRAIN = ("drain", "h100-a-1-1", "--reason", "XID 79")


@pytest.fixture
def server(v1: V1) -> V1:
    """A worker that answers previews with PLAN and accepts the rest as operation op-1."""

    def post(asked: Asked) -> tuple[int, Any]:
        return 202, request(asked.body["kind"], "pending")

    v1.on("POST", "requests", post)
    v1.on("GET", "requests/r-preview", (200, request("preview", "answered", answer=PLAN)))
    for kind in ("drain", "reschedule", "uncordon", "cancel", "choose"):
        accepted = request(kind, "accepted", operation_id="op-1")
        v1.on("GET", f"requests/{kind}", (200, accepted))
        v1.on("GET", f"requests/r-{kind}", (200, accepted))
    v1.on(
        "GET",
        "operations/op-1",
        (200, operation("Running", ended=False)),
        (200, operation("Succeeded", ended=True, message="all is well", pods_done=1)),
    )
    return v1


def _answer_with_plan(server: V1, **changes: Any) -> None:
    plan = {**PLAN, **changes}
    server.on("GET", "requests/r-preview", (200, request("preview", "answered", answer=plan)))


def test_a_dry_run_prints_the_whole_plan_and_requests_nothing(server: V1, pitwall: Run) -> None:
    ended = pitwall(*DRAIN, "--dry-run", url=server.url)
    assert ended.code == 0
    for part in (
        "h100-a-1-1",
        "train/llm-3-abcde",
        "restart with gang",
        "gang of 16 pods, 128 GPUs",
        "ranks moved: 3",
        "12.5 GPU-hours at stake",
        "GPU-hours at stake: 12.5 (since its last checkpoint)",
        "elsewhere: fits",
        "Limits: ok",
        "the job restarts from its last checkpoint",
        "Plan cafe01, good for",
    ):
        assert part in ended.out
    assert [body["kind"] for body in server.posted()] == ["preview"]
    assert server.posted()[0]["parameters"]["action"] == "drain"


def test_a_reschedules_plan_is_headed_by_the_job_and_not_by_the_nodes_it_cordons(
    server: V1, pitwall: Run
) -> None:
    _answer_with_plan(server, action="reschedule")
    ended = pitwall("reschedule", "train/llm", "--reason", "slow", "--dry-run", url=server.url)
    assert ended.out.startswith("Reschedule train/llm (mode now)")


def test_a_dry_run_in_json_is_the_plan_itself(server: V1, pitwall: Run) -> None:
    assert json.loads(pitwall(*DRAIN, "--dry-run", "-o", "json", url=server.url).out) == PLAN


def test_a_drain_asks_with_all_that_was_said_and_the_hash_of_the_plan(
    server: V1, pitwall: Run
) -> None:
    ended = pitwall(
        *DRAIN, "n2", "n2", "--mode", "deadline", "--deadline", "2h", "--delete-emptydir-data",
        "--force", "--yes", url=server.url,
    )  # fmt: skip
    assert ended.code == 0
    assert "pitwall operations op-1" in ended.out
    (body,) = server.posted("drain")
    assert body["reason"] == "XID 79"
    assert body["parameters"] == {
        "nodes": ["h100-a-1-1", "n2"],
        "mode": "deadline",
        "deadline_seconds": 7200,
        "delete_emptydir_data": True,
        "force": True,
        "plan_hash": "cafe01",
    }


def test_without_a_terminal_and_without_yes_nothing_is_asked_for(server: V1, pitwall: Run) -> None:
    ended = pitwall(*DRAIN, url=server.url)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "--yes" in ended.err
    assert server.asked == []


@pytest.mark.parametrize(("typed", "code", "drains"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0)])
def test_on_a_terminal_the_plan_is_shown_and_a_yes_asked_for(
    server: V1, pitwall: Run, typed: str, code: int, drains: int
) -> None:
    ended = pitwall(*DRAIN, url=server.url, typed=typed)
    assert ended.code == code
    assert "Plan cafe01" in ended.out
    assert "Drain as planned?" in ended.err
    assert len(server.posted("drain")) == drains


def test_a_plan_that_changed_since_it_was_read_is_not_carried_out(server: V1, pitwall: Run) -> None:
    ended = pitwall(*DRAIN, "--plan", "beef02", "--yes", url=server.url)
    assert ended.code == 1
    assert "cafe01" in ended.err
    assert "beef02" in ended.err
    assert server.posted("drain") == []
    assert pitwall(*DRAIN, "--plan", "cafe01", "--yes", url=server.url).code == 0


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("limit", 3),
        ("budget", 3),
        ("invalid", 2),
        ("protected", 1),
        ("conflict", 1),
        ("plan_changed", 1),
        ("plan_expired", 1),
        ("not_found", 1),
        ("forbidden", 1),
    ],
)
@pytest.mark.parametrize("kind", ["preview", "drain"])
def test_each_refusal_has_its_exit_code_and_tells_why(
    server: V1, pitwall: Run, kind: str, code: str, exit_code: int
) -> None:
    refused = request(kind, "refused", refusal="node x is somebody's.", refusal_code=code)
    server.on("GET", f"requests/r-{kind}", (200, refused))
    ended = pitwall(*DRAIN, "--yes", url=server.url)
    assert ended.code == exit_code
    assert "node x is somebody's" in ended.err


def test_a_plan_that_a_limit_refuses_ends_with_3_before_anything_is_asked_for(
    server: V1, pitwall: Run
) -> None:
    lines = [
        {"name": "a", "limit": 6, "now": 6, "after": 7, "message": "6 of 64 nodes are out."},
        {"name": "b", "limit": 6, "now": 0, "after": 1, "message": "0 were taken out."},
    ]
    _answer_with_plan(server, limits={"verdict": "refused", "lines": lines})
    for last in ("--yes", "--dry-run"):
        ended = pitwall(*DRAIN, last, url=server.url)
        assert ended.code == 3
        assert ended.err.endswith("can't be carried out: 6 of 64 nodes are out.\n")
    assert server.posted("drain") == []


@pytest.mark.parametrize(
    ("budgets", "exit_code"),
    [
        ([{"namespace": "a", "name": "b", "kind": "unsupported_controller", "message": "no"}], 3),
        ([], 1),
    ],
)
def test_a_blocked_plan_ends_with_3_for_a_budget_and_1_for_the_rest(
    server: V1, pitwall: Run, budgets: list[dict], exit_code: int
) -> None:
    _answer_with_plan(server, blockers=["pod a/b can't be evicted."], budgets=budgets)
    ended = pitwall(*DRAIN, "--yes", url=server.url)
    assert ended.code == exit_code
    assert "can't be evicted" in ended.err
    assert server.posted("drain") == []


def test_a_budget_that_only_wants_waiting_stops_nothing(server: V1, pitwall: Run) -> None:
    budget = {"namespace": "a", "name": "b", "kind": "exhausted", "message": "0 allowed"}
    _answer_with_plan(server, budgets=[budget])
    ended = pitwall(*DRAIN, "--yes", url=server.url)
    assert ended.code == 0
    assert "a/b: 0 allowed" in ended.out


def test_what_is_typed_to_confirm_is_part_of_the_preview_and_of_the_request(
    server: V1, pitwall: Run
) -> None:
    ended = pitwall(*DRAIN, "--yes", "--confirm", "train/llm", url=server.url)
    assert ended.code == 0
    assert [body["parameters"]["confirmation"] for body in server.posted()] == ["train/llm"] * 2


def test_waiting_follows_the_operation_to_its_end(server: V1, pitwall: Run) -> None:
    ended = pitwall(*DRAIN, "--yes", "--wait", url=server.url)
    assert ended.code == 0
    assert "Running, 0 of 1 pods done: evicting pods" in ended.err
    assert "Succeeded, 1 of 1 pods done: all is well" in ended.err


@pytest.mark.parametrize("state", ["Failed", "Cancelled"])
def test_an_operation_that_did_not_succeed_ends_waiting_with_1(
    server: V1, pitwall: Run, state: str
) -> None:
    server.on("GET", "operations/op-1", (200, operation(state, ended=True, message="no space")))
    ended = pitwall(*DRAIN, "--yes", "--wait", url=server.url)
    assert ended.code == 1
    assert f"ended {state}: no space" in ended.err


def test_waiting_that_runs_out_ends_with_4_and_the_operation_goes_on(
    server: V1, pitwall: Run
) -> None:
    server.on("GET", "operations/op-1", (200, operation("Waiting", ended=False)))
    ended = pitwall(*DRAIN, "--yes", "--wait", "--wait-timeout", "1s", url=server.url)
    assert ended.code == 4
    assert "it goes on" in ended.err
    assert server.posted("cancel") == []


def test_a_request_that_no_worker_answers_ends_in_a_sentence(server: V1) -> None:
    server.on("GET", "requests/r-drain", (200, request("drain", "pending")))
    with httpx.Client(base_url=server.url) as client:
        api = Api(client, Settings(url=server.url))
        record = api.submit("drain", {}, reason="x", key="k")
        assert isinstance(record, RequestRecord)
        with pytest.raises(CommandFailed, match="pitwall status"):
            api.answer(record, timeout_seconds=0.5)


def test_a_request_sent_again_keeps_its_key_and_another_command_has_another(
    server: V1, pitwall: Run
) -> None:
    busy = (503, {"error": {"code": "busy", "message": "later"}})
    taken = (202, request("uncordon", "pending"))
    server.on("POST", "requests", busy, busy, taken)
    assert pitwall("uncordon", "n1", url=server.url).code == 0
    first = {body["idempotency_key"] for body in server.posted("uncordon")}
    assert len(server.posted("uncordon")) == 3
    assert len(first) == 1
    assert pitwall("uncordon", "n1", url=server.url).code == 0
    assert len({body["idempotency_key"] for body in server.posted("uncordon")}) == 2


def test_what_needs_no_plan_is_asked_at_once(server: V1, pitwall: Run) -> None:
    pitwall("uncordon", "n1", "n2", "--reason", "mended", url=server.url)
    pitwall("uncordon", "n3", "--confirm", "n3", url=server.url)
    pitwall("cancel", "op-1", url=server.url)
    pitwall("choose", "op-1", "confirm_power_off", "--confirm", "n1", url=server.url)
    pitwall("reschedule", "train/llm", "--reason", "slow", "--yes", url=server.url)
    assert [(body["kind"], body["parameters"]) for body in server.posted()] == [
        ("uncordon", {"nodes": ["n1", "n2"]}),
        ("uncordon", {"nodes": ["n3"], "confirmation": "n3"}),
        ("cancel", {"operation_id": "op-1"}),
        ("choose", {"operation_id": "op-1", "choice": "confirm_power_off", "confirmation": "n1"}),
        ("preview", {"action": "reschedule", "job": "train/llm"}),
        ("reschedule", {"job": "train/llm", "plan_hash": "cafe01"}),
    ]


def test_a_repair_and_a_return_are_asked_at_once_and_may_have_no_operation(
    server: V1, pitwall: Run
) -> None:
    noted = request("repair", "accepted")
    server.on("GET", "requests/repair", (200, noted))
    server.on("GET", "requests/r-repair", (200, noted))
    back = request("return", "accepted", operation_id="op-1")
    server.on("GET", "requests/return", (200, back))
    server.on("GET", "requests/r-return", (200, back))
    sent = pitwall("repair", "n1", "n2", "--reason", "GPU 3 is replaced", url=server.url)
    assert sent.code == 0, sent.err
    assert "accepted" in sent.out
    done = pitwall("return", "n1", "--confirm", "n1", "--wait", url=server.url)
    assert done.code == 0, done.err
    assert [(body["kind"], body["parameters"]) for body in server.posted()] == [
        ("repair", {"nodes": ["n1", "n2"], "text": "GPU 3 is replaced"}),
        ("return", {"nodes": ["n1"], "confirmation": "n1"}),
    ]


@pytest.mark.parametrize("words", [("repair", "n1"), ("repair", "n1", "--reason", " ")])
def test_a_repair_without_its_reason_is_bad_use_and_asks_nothing(
    server: V1, pitwall: Run, words: tuple[str, ...]
) -> None:
    assert pitwall(*words, url=server.url).code == 2
    assert server.posted() == []


def test_a_return_that_is_refused_says_why_and_ends_with_1(server: V1, pitwall: Run) -> None:
    said = "n1 is In service: only what is Under repair or on Probation returns."
    refused = request("return", "refused", refusal=said, refusal_code="conflict")
    server.on("GET", "requests/return", (200, refused))
    server.on("GET", "requests/r-return", (200, refused))
    ended = pitwall("return", "n1", url=server.url)
    assert ended.code == 1
    assert said in ended.err


def test_a_cancel_that_waits_is_done_when_the_operation_is_cancelled(
    server: V1, pitwall: Run
) -> None:
    server.on("GET", "operations/op-1", (200, operation("Cancelled", ended=True)))
    assert pitwall("cancel", "op-1", "--wait", url=server.url).code == 0


def test_watching_an_operation_ends_as_it_does(server: V1, pitwall: Run) -> None:
    ended = pitwall("operations", "op-1", "--watch", url=server.url)
    assert ended.code == 0
    assert "Succeeded" in ended.err


def test_json_of_a_drain_is_the_operation_and_the_plan_goes_to_the_error_stream(
    server: V1, pitwall: Run
) -> None:
    ended = pitwall(*DRAIN, "--yes", "--wait", "-o", "json", url=server.url)
    assert json.loads(ended.out)["state"] == "Succeeded"
    assert "Plan cafe01" in ended.err


def test_each_choice_is_shown_as_what_must_be_typed(server: V1, pitwall: Run) -> None:
    choices = [
        {"name": "confirm_power_off", "label": "n 1 is off", "confirmation": "n 1"},
        {"name": "retry", "label": "Wait again", "warning": "Nothing is changed."},
    ]
    blocked = operation("Blocked", ended=False, choices=choices)
    server.on("GET", "operations/op-1", (200, blocked))
    shown = pitwall("operations", "op-1", url=server.url).out
    assert "  pitwall choose op-1 confirm_power_off --confirm 'n 1'\n    n 1 is off\n" in shown
    assert "  pitwall choose op-1 retry\n    Wait again\n    Nothing is changed.\n" in shown


def test_wait_outlives_a_server_that_does_not_answer_for_a_while(server: V1, pitwall: Run) -> None:
    away = (503, {"error": {"code": "unavailable", "message": "It restarts."}})
    server.on(
        "GET",
        "operations/op-1",
        *[away] * ATTEMPTS,
        (200, operation("Succeeded", ended=True, message="all is well", pods_done=1)),
    )
    ended = pitwall(*DRAIN, "--yes", "--wait", url=server.url)
    assert ended.code == 0
    assert "Operation op-1 goes on by itself; asking again." in ended.err
    assert "Succeeded" in ended.err


def test_wait_that_runs_out_on_a_silent_server_says_that_the_operation_goes_on(
    server: V1, pitwall: Run
) -> None:
    away = (503, {"error": {"code": "unavailable", "message": "It restarts."}})
    server.on("GET", "operations/op-1", away)
    ended = pitwall(*DRAIN, "--yes", "--wait", "--wait-timeout", "1s", url=server.url)
    assert ended.code == 4
    assert "was not heard of" in ended.err
