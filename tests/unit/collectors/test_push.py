"""What an answer of ingest means, and when to try again."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.errors import CollectorError, TokenError
from collectors.push import Receipt, Sender, TokenFile, back_off, classify


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "taken") for status in (200, 202, 204)),
        *((status, "denied") for status in (401, 403)),
        *((status, "rejected") for status in (400, 404, 409, 413, 422)),
        *((status, "retry") for status in (301, 408, 429, 500, 502, 503, 504)),
    ],
)
def test_each_status_has_one_meaning(status: int, kind: str) -> None:
    assert classify(status, b"", None).kind == kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("-3", 0.0), ("999999", 300.0), ("soon", None), (None, None)],
)
def test_retry_after_is_heeded_within_reason(header: str | None, seconds: float | None) -> None:
    assert classify(503, b"", header).retry_after_seconds == seconds


def test_a_receipt_is_read_and_any_other_body_is_an_answer_too() -> None:
    body = b'{"closed_episodes":["e1"],"expected_gpus":7,"added_later":1}'
    assert classify(202, body, None).receipt == Receipt(("e1",), 7)
    for other in (b"", b"ok", b"[]", b"\xff", b'{"closed_episodes":5}'):
        assert classify(202, other, None).receipt == Receipt()


def test_the_back_off_doubles_up_to_its_limit_and_is_spread() -> None:
    def pauses(chance: float) -> list[float]:
        return [
            back_off(failures, first_seconds=1, longest_seconds=60, chance=chance)
            for failures in (1, 2, 3, 6, 7, 1000)
        ]

    assert pauses(1.0) == [1, 2, 4, 32, 60, 60]
    assert pauses(0.0) == [0.5, 1, 2, 16, 30, 30]


def test_a_token_file_is_read_again_after_it_was_denied(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(" first \n")
    token = TokenFile(path)
    assert token.read() == "first"
    path.write_text("second")
    assert token.read() == "first"
    token.renew()
    assert token.read() == "second"
    assert TokenFile(None).read() is None


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe"])
def test_a_token_file_without_a_token_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenError, match=str(path)):
        TokenFile(path).read()


@pytest.mark.parametrize("url", ["", "ingest:8470", "ftp://ingest", "http://"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(CollectorError, match="PITWALL_INGEST_URL"):
        Sender(url)


def test_nobody_at_the_address_is_tried_again() -> None:
    outcome = Sender("http://127.0.0.1:9", timeout_seconds=1).send(b"x", None)
    assert (outcome.kind, outcome.status) == ("retry", None)
