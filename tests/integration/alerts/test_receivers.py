"""What each kind of receiver is sent, against real servers; and that no address is ever told."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from receiving import HttpReceiver, http_receiver, mail_receiver

from app.alerts.config import Receiver
from app.notifications.addresses import AddressError, read_address, scrub
from app.notifications.sending import Message, Sender, retry_after

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def message(event: str = "trigger") -> Message:
    return Message(
        "d1", "pitwall/test/k1", event, "h100-a-r01-05: XID 79", "GPU 3, rack r01", "fatal", "http://127.0.0.1:8501/i",
        ({"node": "h100-a-r01-05"},),
    )  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as found:
        yield found


@pytest.fixture
def sender(receiver: HttpReceiver) -> Iterator[Sender]:
    made = Sender(
        clock=lambda: NOW,
        pagerduty_url=f"http://{receiver.url}/v2/enqueue",
        opsgenie_url=f"http://{receiver.url}/v2/alerts",
    )
    yield made
    made.close()


def test_a_webhook_gets_the_message_with_its_idempotency_key(
    sender: Sender, receiver: HttpReceiver
) -> None:
    assert sender.send(f"json://{receiver.url}/hook?token=secret", message()).outcome == "sent"
    (heard,) = receiver.heard
    assert heard.path == "/hook?token=secret"
    assert heard.headers["Idempotency-Key"] == "d1"
    assert heard.document["key"] == "pitwall/test/k1"
    assert heard.document["title"] == "h100-a-r01-05: XID 79"
    assert heard.document["alerts"] == [{"node": "h100-a-r01-05"}]


def test_pagerduty_gets_one_key_over_trigger_acknowledge_and_resolve(
    sender: Sender, receiver: HttpReceiver
) -> None:
    for event in ("trigger", "acknowledge", "resolve"):
        assert sender.send("pagerduty://0123456789abcdef", message(event)).outcome == "sent"
    said = [heard.document for heard in receiver.heard]
    assert [one["event_action"] for one in said] == ["trigger", "acknowledge", "resolve"]
    assert {one["dedup_key"] for one in said} == {"pitwall/test/k1"}
    assert {one["routing_key"] for one in said} == {"0123456789abcdef"}
    assert said[0]["payload"]["severity"] == "critical"
    assert "payload" not in said[2]


def test_opsgenie_gets_one_alias_over_trigger_acknowledge_and_resolve(
    sender: Sender, receiver: HttpReceiver
) -> None:
    for event in ("trigger", "acknowledge", "resolve"):
        assert sender.send("opsgenie://key-of-opsgenie", message(event)).outcome == "sent"
    paths = [heard.path for heard in receiver.heard]
    assert paths[0] == "/v2/alerts"
    assert receiver.heard[0].document["alias"] == "pitwall/test/k1"
    assert paths[1] == "/v2/alerts/pitwall%2Ftest%2Fk1/acknowledge?identifierType=alias"
    assert paths[2] == "/v2/alerts/pitwall%2Ftest%2Fk1/close?identifierType=alias"
    assert {heard.headers["Authorization"] for heard in receiver.heard} == {
        "GenieKey key-of-opsgenie"
    }


def test_other_services_are_apprises_and_mail_arrives_as_plain_text(sender: Sender) -> None:
    with mail_receiver() as mail:
        address = f"mailto://127.0.0.1:{mail.port}?from=pitwall@example.com&to=oncall@example.com&mode=insecure"
        assert sender.send(address, message()).outcome == "sent"
    (text,) = mail.mails
    assert "h100-a-r01-05: XID 79" in text
    assert "http://127.0.0.1:8501/i" in text
    assert "text/html" not in text


def test_an_apprise_service_that_is_down_is_tried_later_and_one_that_is_none_is_refused(
    sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        down = sender.send("ntfy://127.0.0.1:9/secret-topic", message())
        none = sender.send("nosuch://secret-token", message())
    assert down.outcome == "later"
    assert none.outcome == "refused"
    said = f"{down} {none} {caplog.text}"
    assert "secret" not in said


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "sent"), (202, "sent"), (400, "refused"), (401, "refused"), (408, "later"), (429, "later"), (500, "later"), (503, "later")],
)  # fmt: skip
def test_each_answer_means_what_http_says(
    sender: Sender, receiver: HttpReceiver, status: int, outcome: str
) -> None:
    receiver.always = (status, {})
    assert sender.send(f"json://{receiver.url}/hook", message()).outcome == outcome


def test_how_long_a_service_wants_to_be_left_alone_is_honoured(
    sender: Sender, receiver: HttpReceiver
) -> None:
    receiver.always = (503, {"Retry-After": "120"})
    assert sender.send(f"json://{receiver.url}/hook", message()).wait == timedelta(seconds=120)
    assert retry_after("Sun, 01 Mar 2026 12:01:00 GMT", NOW) == timedelta(seconds=60)
    assert retry_after("Sun, 01 Mar 2026 11:00:00 GMT", NOW) == timedelta()
    assert retry_after("999999999", NOW) == timedelta(hours=1)
    assert retry_after("soon", NOW) is None
    assert retry_after(None, NOW) is None


def test_a_webhook_that_does_not_answer_is_tried_later_and_its_address_is_not_told(
    sender: Sender,
) -> None:
    sent = sender.send("json://127.0.0.1:9/very-secret-path?token=abcdef", message())
    assert sent.outcome == "later"
    assert "very-secret-path" not in sent.error
    assert "abcdef" not in sent.error


def test_an_address_is_read_from_a_variable_or_a_file_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PITWALL_ALERT_SECRET_SLACK", " slack://a/b/c \n")
    assert (
        read_address(Receiver(name="chat", url_env="PITWALL_ALERT_SECRET_SLACK")) == "slack://a/b/c"
    )
    path = tmp_path / "pager"
    receiver = Receiver(name="pager", url_file=path)
    with pytest.raises(AddressError, match=r"pager: the file .*can't be read"):
        read_address(receiver)
    path.write_text("no address")
    with pytest.raises(AddressError, match="holds no address") as caught:
        read_address(receiver)
    assert "no address\n" not in str(caught.value).replace("holds no address", "")
    path.write_text("pagerduty://one")
    assert read_address(receiver) == "pagerduty://one"
    path.write_text("pagerduty://two")
    assert read_address(receiver) == "pagerduty://two"


def test_errors_of_others_are_scrubbed_of_every_piece_of_the_address() -> None:
    address = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
    said = scrub(
        "POST https://hooks.example/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ failed", address
    )
    assert "T1JJ3T3L2" not in said
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in said
    assert said.endswith("failed")
