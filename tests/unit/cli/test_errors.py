"""Whatever goes wrong is one sentence and an exit code, never a traceback."""

import re
import socket
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import V1, Ended
from tests.unit.cli.documents import NODE

Run = Callable[..., Ended]


def _is_one_sentence(text: str) -> bool:
    return (
        text.startswith("pitwall: ")
        and text.count("\n") == 1
        and text.rstrip()[-1] in ".!"
        and "Traceback" not in text
    )


def test_a_server_that_hangs_is_given_up_after_one_read_timeout(
    pitwall: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.api.READ_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # connects, and never answers
        ended = pitwall("status", url=f"http://127.0.0.1:{hung.getsockname()[1]}")
    assert ended.code == 1
    assert "got no answer in 1 try (timed out)" in ended.err


def test_no_server_names_the_address_and_what_to_do(pitwall: Run) -> None:
    ended = pitwall("status", url="http://127.0.0.1:1")
    assert ended.code == 1
    assert _is_one_sentence(ended.err)
    assert "http://127.0.0.1:1/v1/status" in ended.err
    assert "PITWALL_URL" in ended.err


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "word"),
    [
        (401, "unauthenticated", 1, "kubectl create token"),
        (403, "forbidden", 1, "may not list nodes"),
        (404, "not_found", 1, "may not list nodes"),
        (400, "invalid", 2, "may not list nodes"),
        (409, "limit", 3, "may not list nodes"),
        (500, "internal", 1, "may not list nodes"),
    ],
)
def test_a_refusal_gives_the_servers_sentence_and_its_exit_code(
    v1: V1, pitwall: Run, status: int, code: str, exit_code: int, word: str
) -> None:
    v1.on("GET", "nodes", (status, {"error": {"code": code, "message": "you may not list nodes."}}))
    ended = pitwall("nodes", url=v1.url)
    assert ended.code == exit_code
    assert _is_one_sentence(ended.err)
    assert word in ended.err


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"error": "x"}', b'{"error": {"message": 1}}', b"[1]"]
)
def test_an_answer_that_is_not_ours_is_told(v1: V1, pitwall: Run, body: bytes) -> None:
    v1.on("GET", "nodes", (502 if body == b"[1]" else 400, body))
    ended = pitwall("nodes", url=v1.url)
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.err


def test_a_page_instead_of_v1_is_told(v1: V1, pitwall: Run) -> None:
    v1.on("GET", "status", (200, b"<html>hello</html>"))
    ended = pitwall("status", url=v1.url)
    assert ended.code == 1
    assert "pitwall ingest" in ended.err
    assert _is_one_sentence(ended.err)


def test_a_record_of_another_version_is_told(v1: V1, pitwall: Run) -> None:
    v1.on("GET", "nodes", (200, {"items": [{**NODE, "score": "high"}], "next": None}))
    ended = pitwall("nodes", url=v1.url)
    assert ended.code == 1
    assert "NodeRecord" in ended.err
    assert _is_one_sentence(ended.err)


def test_a_passing_failure_is_tried_again(v1: V1, pitwall: Run) -> None:
    busy = (503, {"error": {"code": "busy", "message": "starting"}})
    v1.on("GET", "nodes", busy, busy, (200, {"items": [NODE], "next": None}))
    assert pitwall("nodes", url=v1.url).code == 0
    assert len(v1.asked) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["drain"],
        ["drain", "n1"],
        ["drain", "n1", "--reason", "x", "--mode", "later", "--dry-run"],
        ["drain", "n1", "--reason", "x", "--mode", "deadline", "--dry-run"],
        ["drain", "n1", "--reason", "x", "--deadline", "2h", "--dry-run"],
        ["drain", "n1", "--reason", "x", "--mode", "deadline", "--deadline", "soon", "--dry-run"],
        ["drain", "n1", "--reason", " ", "--yes"],
        ["drain", "n1", "--reason", "x", "--yes", "--wait", "--wait-timeout", "long"],
        ["operations", "--watch"],
        ["nodes", "-o", "yaml"],
        ["nodes", "--limit", "-1"],
        ["choose", "op-1"],
        ["simulate", "fault", "n1"],
        ["nonsense"],
        ["demo", "--nodes", "0"],
    ],
    ids=" ".join,
)
def test_bad_use_exits_2_and_asks_the_server_nothing(
    v1: V1, pitwall: Run, arguments: list[str]
) -> None:
    ended = pitwall(*arguments, url=v1.url)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert v1.asked == []


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"PITWALL_URL": "nowhere"}, "PITWALL_URL"),
        ({"PITWALL_TOKEN_FILE": "/does/not/exist"}, "PITWALL_TOKEN_FILE"),
        ({"PITWALL_WEB_PORT": "many"}, "PITWALL_WEB_PORT"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    pitwall: Run, variables: dict[str, str], name: str
) -> None:
    ended = pitwall("status", **variables)
    assert ended.code == 2
    assert name in ended.err
    assert _is_one_sentence(ended.err)


def test_a_fault_without_a_simulator_says_how_to_start_one(pitwall: Run) -> None:
    ended = pitwall("simulate", "fault", "n1", "xid-79")
    assert ended.code == 1
    assert re.search("pitwall demo", ended.err)
    assert _is_one_sentence(ended.err)
