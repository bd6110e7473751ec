"""What people ask for about alerts: what is taken, what is refused and why."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from app.alerts.config import AlertConfig, Receiver
from app.errors import RequestRefused
from app.operations import alert_requests
from app.settings import Settings
from app.store import requests
from app.store.engine import migrate, open_store, read, write
from app.store.reads import alerts as reads
from app.store.reads.rows import table_of
from app.store.tables import AlertReceiver

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONFIG = AlertConfig(receiver=(Receiver(name="pager", url_env="PITWALL_ALERT_SECRET_PAGER"),))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    migrate(url)
    made = open_store(url)
    yield made
    made.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, alert_secrets_dir=tmp_path)


def ask(
    engine: Engine, settings: Settings, kind: str, reason: str = "", **parameters: Any
) -> dict[str, Any]:
    record = requests.submit(
        engine,
        "c",
        kind=kind,
        parameters=parameters,
        author="ana",
        reason=reason,
        idempotency_key="",
        now=NOW,
    )
    with write(engine) as connection:
        return alert_requests.answer(
            connection, "c", record, config=CONFIG, settings=settings, now=NOW
        )


def test_a_silence_has_who_why_and_until_when(engine: Engine, settings: Settings) -> None:
    made = ask(engine, settings, "silence", "riser", on="node", value="n1", seconds=7200)
    (one,) = reads.silences(engine, "c", now=NOW)
    assert one.id == made["silence_id"]
    assert (one.author, one.reason, one.ends_at) == ("ana", "riser", NOW + timedelta(hours=2))
    assert one.matchers == [{"label": "node", "op": "=", "value": "n1"}]
    ask(engine, settings, "unsilence", silence_id=one.id)
    assert reads.silences(engine, "c", now=NOW) == []
    assert reads.silences(engine, "c", now=NOW, over=True)[0].ended_by == "ana"


def test_a_window_may_lie_ahead_and_matchers_may_be_alertmanagers(
    engine: Engine, settings: Settings
) -> None:
    ask(
        engine, settings, "maintenance", "cables", matchers=['rack="r1"', "severity=~warning|info"],
        seconds=60, starts_at="2026-03-02T22:00:00Z",
    )  # fmt: skip
    (one,) = reads.silences(engine, "c", now=NOW)
    assert one.starts_at == datetime(2026, 3, 2, 22, tzinfo=UTC)
    assert one.matchers[1] == {"label": "severity", "op": "=~", "value": "warning|info"}


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("silence", {"on": "node", "value": "n1", "seconds": 60}, "Say why"),
        ("silence", {"on": "node", "value": "n1", "text": "x"}, "for how long"),
        ("silence", {"on": "node", "value": "n1", "text": "x", "seconds": 40 * 86400}, "30 days"),
        ("silence", {"on": "node", "value": " ", "text": "x", "seconds": 60}, "Name the node"),
        ("silence", {"on": "moon", "value": "n1", "text": "x", "seconds": 60}, "not on moon"),
        ("silence", {"text": "x", "seconds": 60}, "Say what is to be silent"),
        ("silence", {"matchers": ["node=~["], "text": "x", "seconds": 60}, "no regular expression"),
        ("silence", {"matchers": ["nonsense"], "text": "x", "seconds": 60}, "no matcher"),
        ("silence", {"on": "all", "text": "x", "seconds": "soon"}, "can't be read"),
        (
            "maintenance",
            {"on": "all", "text": "x", "seconds": 60, "starts_at": "2027-01-01T00:00:00Z"},
            "90 days ahead",
        ),
        (
            "maintenance",
            {"on": "all", "text": "x", "seconds": 60, "starts_at": "2026-02-01T00:00:00Z"},
            "ends before",
        ),
        ("unsilence", {"silence_id": "none"}, "There is no silence none"),
        ("send_again", {"delivery_id": "none"}, "There is no delivery none"),
        ("receiver_add", {"receiver": "pager", "secret": "x"}, "already"),
        ("receiver_add", {"receiver": "chat", "secret": "slack://a/b/c"}, "That is an address"),
        ("receiver_add", {"receiver": "chat", "secret": "../../etc/passwd"}, "That is an address"),
        ("receiver_add", {"receiver": "chat", "secret": ".."}, "is no name of a file"),
        ("receiver_add", {"receiver": "", "secret": "x"}, "receiver's name"),
        ("receiver_disable", {"receiver": "pager"}, "has no receiver pager"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    engine: Engine, settings: Settings, kind: str, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestRefused, match=said):
        ask(engine, settings, kind, **parameters)
    assert reads.silences(engine, "c", now=NOW, over=True) == []


def test_a_receiver_of_the_page_keeps_the_name_of_its_secret_and_nothing_of_it(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "chat-address").write_text("slack://very/secret/token")
    ask(
        engine,
        settings,
        "receiver_add",
        receiver="chat",
        secret="chat-address",
        on="team",
        value="vision",
    )
    ask(engine, settings, "test_receiver", receiver="chat")
    with read(engine) as connection:
        row = connection.execute(select(table_of(AlertReceiver))).one()
    assert "very" not in str(row)
    (one,) = reads.receivers(engine, "c")
    assert (one.name, one.secret, one.pending) == ("chat", "chat-address", 1)
    (sent,) = reads.deliveries(engine, "c")
    assert (sent.event, sent.receiver) == ("test", "chat")
    assert "Nothing is wrong" in sent.message["body"]
    ask(engine, settings, "receiver_disable", receiver="chat")
    assert reads.receivers(engine, "c")[0].origin == "file"
