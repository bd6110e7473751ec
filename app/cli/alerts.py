"""Alerts for people: what is told, what is silent and until when, what could not be delivered."""

from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli.api import open_api
from app.cli.asking import Ask, Manner, ask_at_once
from app.cli.durations import read_duration, write_age
from app.cli.outcome import BadUse
from app.cli.output import Output, OutputOption, print_listing
from app.cli.tables import Column
from app.settings import read_settings
from app.store.alert_records import AlertRecord, DeliveryRecord, ReceiverRecord, SilenceRecord

SUBJECTS = ("node", "rack", "block", "job", "rule", "team")


def _matchers(one: SilenceRecord) -> str:
    return ", ".join(f"{m['label']}{m['op']}{m['value']}" for m in one.matchers)


def _muted(one: AlertRecord) -> str:
    muted = [f"silenced by {', '.join(one.silenced_by)}"] if one.silenced_by else []
    return " ".join([*muted, *(["inhibited"] if one.inhibited_by else [])]) or "-"


ALERTS = (
    Column("ALERT", lambda one, now: str(one.labels.get("alertname", ""))),
    Column("SEVERITY", lambda one, now: one.severity),
    Column("STATE", lambda one, now: one.state),
    Column("FOR", lambda one, now: write_age(one.started_at, now=now)),
    Column("MUTED", lambda one, now: _muted(one)),
    Column("WITH", lambda one, now: one.acknowledged_by or "-"),
    Column("ID", lambda one, now: one.id, wide=True),
    Column("SUMMARY", lambda one, now: str(one.annotations.get("summary", ""))),
)
SILENCES = (
    Column("ID", lambda one, now: one.id),
    Column("KIND", lambda one, now: one.kind),
    Column("ON", lambda one, now: _matchers(one)),
    Column("UNTIL", lambda one, now: f"{one.ends_at:%Y-%m-%d %H:%M} UTC"),
    Column("HIDES", lambda one, now: str(one.hides)),
    Column("BY", lambda one, now: one.author),
    Column("FROM", lambda one, now: f"{one.starts_at:%Y-%m-%d %H:%M} UTC", wide=True),
    Column("ORIGIN", lambda one, now: one.origin, wide=True),
    Column("REASON", lambda one, now: one.reason),
)
DELIVERIES = (
    Column("ID", lambda one, now: one.id),
    Column("RECEIVER", lambda one, now: one.receiver),
    Column("EVENT", lambda one, now: one.event),
    Column("STATE", lambda one, now: one.state),
    Column("MADE", lambda one, now: write_age(one.created_at, now=now)),
    Column("TRIES", lambda one, now: str(one.attempts)),
    Column("TITLE", lambda one, now: str(one.message.get("title", ""))),
    Column("ERROR", lambda one, now: one.last_error),
)
RECEIVERS = (
    Column("RECEIVER", lambda one, now: one.name),
    Column("ORIGIN", lambda one, now: one.origin),
    Column("SECRET", lambda one, now: one.secret or "-"),
    Column(
        "SENT", lambda one, now: write_age(one.last_sent_at, now=now) if one.last_sent_at else "-"
    ),
    Column("WAITING", lambda one, now: str(one.pending)),
    Column("DEAD", lambda one, now: str(one.dead)),
    Column("ERROR", lambda one, now: one.last_error),
)

On = Annotated[
    str,
    typer.Option(
        metavar="WHAT=NAME", help=f"One of {', '.join(SUBJECTS)}, or `all`: node=h100-a-r01-05."
    ),
]
Match = Annotated[
    list[str] | None,
    typer.Option(help='Matchers instead, as Alertmanager has them: severity="warning".'),
]
For = Annotated[str, typer.Option("--for", help="How long: 30m, 4h, 2d; 30 days at most.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read it later.")]


def register(program: typer.Typer) -> None:
    for command in (alerts, silences, silence, maintenance, unsilence, deliveries, receivers):
        program.command(command.__name__)(command)
    program.command("send-again")(send_again)
    program.command("drop-delivery")(drop_delivery)
    program.command("test-receiver")(send_test)


def alerts(
    everything: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
    output: OutputOption = Output.TABLE,
) -> None:
    """What is told to people now, what mutes it, and who has it."""
    where = {"open_only": str(not everything).lower(), "limit": str(limit)}
    _list("alerts", where, AlertRecord, ALERTS, output, "No alert is open.")


def silences(
    everything: Annotated[bool, typer.Option("--all", help="Past ones too.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Silences and maintenance windows, and how many alerts each hides."""
    where = {"over": str(everything).lower()}
    _list("silences", where, SilenceRecord, SILENCES, output, "Nothing is silent.")


def silence(
    reason: Reason,
    length: For,
    on: On = "",
    match: Match = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell nobody of these alerts for a time. They stay visible and counted."""
    _quieten("silence", on, match, length, reason, {}, output)


def maintenance(
    reason: Reason,
    length: For,
    on: On = "",
    match: Match = None,
    begin: Annotated[
        datetime | None,
        typer.Option("--from", help="When it begins, UTC; now where it is not given."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """A window in which these alerts are expected."""
    when = {} if begin is None else {"starts_at": f"{begin:%Y-%m-%dT%H:%M:%S}Z"}
    _quieten("maintenance", on, match, length, reason, when, output)


def unsilence(
    silence_id: Annotated[str, typer.Argument(metavar="ID")], output: OutputOption = Output.TABLE
) -> None:
    """End a silence or maintenance window early."""
    _ask("unsilence", {"silence_id": silence_id}, output)


def deliveries(
    state: Annotated[str | None, typer.Option(help="pending, sent, dead or dropped.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Messages that were sent, wait, or were given up."""
    where = {"state": state, "limit": str(limit)}
    _list("deliveries", where, DeliveryRecord, DELIVERIES, output, "No message.")


def send_again(
    delivery_id: Annotated[str, typer.Argument(metavar="ID")], output: OutputOption = Output.TABLE
) -> None:
    """Try a message anew that was given up."""
    _ask("send_again", {"delivery_id": delivery_id}, output)


def drop_delivery(
    delivery_id: Annotated[str, typer.Argument(metavar="ID")], output: OutputOption = Output.TABLE
) -> None:
    """Forget a message that was given up."""
    _ask("drop_delivery", {"delivery_id": delivery_id}, output)


def receivers(output: OutputOption = Output.TABLE) -> None:
    """Who is told, and how that went."""
    _list(
        "receivers",
        {},
        ReceiverRecord,
        RECEIVERS,
        output,
        "No receiver has been told anything yet.",
    )


def send_test(
    name: Annotated[str, typer.Argument(metavar="RECEIVER")], output: OutputOption = Output.TABLE
) -> None:
    """Send a test message."""
    _ask("test_receiver", {"receiver": name}, output)


def _quieten(
    kind: str,
    on: str,
    match: list[str] | None,
    length: str,
    reason: str,
    more: dict[str, Any],
    output: Output,
) -> None:
    if not reason.strip():
        raise BadUse("--reason is empty; say why, others will read it.")
    parameters: dict[str, Any] = {
        "seconds": read_duration(length, option="--for"),
        "text": reason,
        **more,
    }
    if match:
        parameters["matchers"] = match
    elif on == "all":
        parameters["on"] = "all"
    else:
        what, _, value = on.partition("=")
        if what not in SUBJECTS or not value:
            raise BadUse(
                f"--on is one of {', '.join(SUBJECTS)} with =NAME, or all; or give --match."
            )
        parameters |= {"on": what, "value": value}
    _ask(kind, parameters, output, reason=reason)


def _ask(kind: str, parameters: dict[str, Any], output: Output, *, reason: str = "") -> None:
    manner = Manner(yes=True, wait=False, wait_timeout="5m", output=output)
    ask_at_once(Ask(kind, parameters, reason=reason), manner)


def _list(
    route: str, where: dict[str, Any], record: Any, columns: Any, output: Output, empty: str
) -> None:
    documents = open_api(read_settings()).get(route, where)["items"]
    print_listing(documents, record, columns, output=output, empty=empty)
