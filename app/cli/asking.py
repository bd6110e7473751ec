"""From a person's wish to an accepted operation: preview, yes or no, request, answer."""

import sys
import time
import uuid
from dataclasses import dataclass
from typing import Any

import typer

from app.cli.api import Api, error_for, now_utc, open_api, read_record
from app.cli.durations import read_duration
from app.cli.outcome import BadUse, CommandFailed, Refused, WaitRanOut
from app.cli.output import Output, print_json
from app.cli.plan_text import is_refused_by_limit_or_budget, plan_lines, stands_against
from app.cli.progress import follow, raise_unless_done
from app.cli.tables import printable
from app.settings import read_settings
from app.store.records import RequestRecord

ANSWER_TIMEOUT_SECONDS = 30.0
APPROVAL_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Ask:
    """What is asked for. `plan_hash` binds the yes to a plan that was read before."""

    kind: str
    parameters: dict[str, Any]
    reason: str
    plan_hash: str | None = None


@dataclass(frozen=True)
class Manner:
    """How the command goes about it."""

    yes: bool
    wait: bool
    wait_timeout: str
    output: Output
    dry_run: bool = False
    cancels: bool = False

    @property
    def wait_seconds(self) -> float:
        """Raises BadUse when --wait-timeout is no duration."""
        return read_duration(self.wait_timeout, option="--wait-timeout")


def plan_then_ask(ask: Ask, manner: Manner) -> None:
    """Shows the plan, asks unless told not to, requests it, and waits when told to."""
    manner.wait_seconds  # noqa: B018  said before anything is asked for
    if not (ask.reason.strip() or manner.dry_run):
        raise BadUse("--reason is empty; say why, others will read it.")
    if not (manner.yes or manner.dry_run or sys.stdin.isatty()):
        raise BadUse(
            f"There is no terminal to ask on, so {ask.kind} did nothing; give --yes, or --dry-run to "
            f"see the plan."
        )
    api = open_api(read_settings())
    plan = _preview(api, ask)
    if manner.output is Output.JSON and manner.dry_run:
        print_json(plan)
    else:
        for line in plan_lines(plan, now=now_utc()):
            typer.echo(line, err=manner.output is Output.JSON)
    if ask.plan_hash is not None and plan.get("hash") != ask.plan_hash:
        raise CommandFailed(
            f"The plan is now {plan.get('hash')}, not {ask.plan_hash}: the cluster changed since; "
            f"read the new plan and ask again."
        )
    _stop_if_hopeless(ask, plan)
    if manner.dry_run:
        return
    if not manner.yes and not typer.confirm(f"{ask.kind.capitalize()} as planned?", err=True):
        raise CommandFailed(f"Not confirmed, so {ask.kind} did nothing.")
    _request(api, ask, {**ask.parameters, "plan_hash": plan.get("hash")}, manner)


def ask_at_once(ask: Ask, manner: Manner) -> RequestRecord:
    """Requests what needs no plan, waits when told to, and gives the answer."""
    manner.wait_seconds  # noqa: B018  said before anything is asked for
    return _request(open_api(read_settings()), ask, ask.parameters, manner)


def _preview(api: Api, ask: Ask) -> dict[str, Any]:
    record = api.submit(
        "preview",
        {"action": ask.kind, **ask.parameters},
        reason=ask.reason,
        key=f"cli-{uuid.uuid4()}",
    )
    record = api.answer(record, timeout_seconds=ANSWER_TIMEOUT_SECONDS)
    _raise_if_refused(record, ask)
    return record.answer


def _stop_if_hopeless(ask: Ask, plan: dict[str, Any]) -> None:
    """A plan that the worker would refuse ends here, with what stands against it."""
    obstacle = stands_against(plan)
    if obstacle is None:
        return
    kind = Refused if is_refused_by_limit_or_budget(plan) else CommandFailed
    raise kind(f"{ask.kind.capitalize()} can't be carried out: {obstacle}")


def _request(api: Api, ask: Ask, parameters: dict[str, Any], manner: Manner) -> RequestRecord:
    record = api.submit(ask.kind, parameters, reason=ask.reason, key=f"cli-{uuid.uuid4()}")
    record = api.answer(record, timeout_seconds=ANSWER_TIMEOUT_SECONDS)
    _raise_if_refused(record, ask)
    if record.state == "awaiting_approval":
        if not manner.wait:
            _print_awaiting(record, manner)
            return record
        record = _wait_for_approval(api, record, ask, manner)
    operation_id = record.operation_id
    if operation_id is None:
        _print_request(record, manner)
        return record
    if not manner.wait:
        if manner.output is Output.JSON:
            print_json(api.get(f"operations/{operation_id}"))
        else:
            typer.echo(f"Operation {operation_id} is under way: pitwall operations {operation_id}")
        return record
    operation = follow(
        api, operation_id, timeout_seconds=manner.wait_seconds, quiet=manner.output is Output.JSON
    )
    if manner.output is Output.JSON:
        print_json(api.get(f"operations/{operation_id}"))
    raise_unless_done(operation, cancels=manner.cancels)
    return record


def _print_awaiting(record: RequestRecord, manner: Manner) -> None:
    if manner.output is Output.JSON:
        print_json(record)
    else:
        typer.echo(f"Request {record.id} waits. {printable(record.answer['approval']['message'])}")


def _wait_for_approval(api: Api, record: RequestRecord, ask: Ask, manner: Manner) -> RequestRecord:
    """The record once somebody has approved it. Raises when it was refused, or --wait ran out."""
    typer.echo(printable(record.answer["approval"]["message"]), err=True)
    end = time.monotonic() + manner.wait_seconds
    while record.state == "awaiting_approval":
        if time.monotonic() > end:
            raise WaitRanOut(
                f"Nobody has approved request {record.id} yet; it waits on: pitwall approve {record.id}."
            )
        time.sleep(APPROVAL_POLL_SECONDS)
        record = read_record(api.get(f"requests/{record.id}"), RequestRecord)
    _raise_if_refused(record, ask)
    return record


def _raise_if_refused(record: RequestRecord, ask: Ask) -> None:
    if record.state != "refused":
        return
    message = printable(record.refusal) or "no reason was given."
    raise error_for(record.refusal_code, f"{ask.kind.capitalize()} was refused: {message}")


def _print_request(record: RequestRecord, manner: Manner) -> None:
    if manner.output is Output.JSON:
        print_json(record)
    else:
        typer.echo(f"Request {record.id} was {record.state}.")
