"""What people ask the worker to do: drain, uncordon, reschedule, cancel, choose, and how it goes."""

from typing import Annotated, Any

import typer

from app.cli.api import now_utc, open_api, read_record
from app.cli.asking import Ask, Manner, ask_at_once, plan_then_ask
from app.cli.columns import OPERATIONS
from app.cli.durations import read_duration
from app.cli.outcome import BadUse
from app.cli.output import Output, OutputOption, print_json, print_listing
from app.cli.progress import follow, operation_lines, raise_unless_done
from app.settings import read_settings
from app.store.records import OperationRecord

MODES = ("now", "checkpoint", "complete", "deadline")

Nodes = Annotated[list[str], typer.Argument(metavar="NODE", help="Names of nodes.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read it later.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
PlanHash = Annotated[
    str | None, typer.Option("--plan", help="Only if the plan still has this hash.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the operation has ended.")]
WaitTimeout = Annotated[str, typer.Option(help="How long --wait waits, then exit code 4.")]
Confirm = Annotated[
    str, typer.Option(help="What must be typed: jobs that fit nowhere else, a node that is off.")
]


ConfirmProtected = Annotated[
    str,
    typer.Option(help="Names of protected nodes, pods, jobs or namespaces to take all the same."),
]
PastLimits = Annotated[
    str,
    typer.Option(help="Names of limits to go past, as the refusal gives them. No other word does."),
]


def register(program: typer.Typer) -> None:
    for command in (operations, drain, uncordon, reschedule, cancel, choose):
        program.command(command.__name__)(command)


def operations(
    operation_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow ID until it ends.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """The open operations, or one with its steps."""
    api = open_api(read_settings())
    if operation_id is None:
        if watch:
            raise BadUse("--watch follows one operation; name its ID.")
        where = {"open_only": str(not everything).lower()}
        documents = list(api.items("operations", where, limit=limit))
        print_listing(
            documents, OperationRecord, OPERATIONS, output=output, empty="No operation is open."
        )
        return
    if watch:
        quiet = output is Output.JSON
        operation = follow(api, operation_id, timeout_seconds=None, quiet=quiet)
        if quiet:
            print_json(api.get(f"operations/{operation_id}"))
        raise_unless_done(operation, cancels=operation.cancel_requested_by is not None)
        return
    document = api.get(f"operations/{operation_id}")
    if output is Output.JSON:
        print_json(document)
        return
    for line in operation_lines(read_record(document, OperationRecord), now=now_utc()):
        typer.echo(line)


def drain(
    reason: Reason,
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="[NODE]...", help="Names of nodes.")
    ] = None,
    rack: Annotated[list[str] | None, typer.Option(help="All nodes of this rack.")] = None,
    block: Annotated[list[str] | None, typer.Option(help="All nodes of this block.")] = None,
    incident: Annotated[str, typer.Option(help="All nodes of this incident.")] = "",
    dry_run: DryRun = False,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help="now, checkpoint, complete or deadline; NAMESPACE/NAME=MODE for a pod or a job."
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="How long pods in mode deadline, or checkpoint, may run on, as 2h."),
    ] = None,
    delete_emptydir_data: Annotated[
        bool, typer.Option("--delete-emptydir-data", help="Evict pods that keep data in emptyDir.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Evict pods that nothing recreates. Passes no limit.")
    ] = False,
    confirm: Confirm = "",
    confirm_protected: ConfirmProtected = "",
    past_limits: PastLimits = "",
    plan: PlanHash = None,
    yes: Yes = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """Empty nodes and bring their jobs back elsewhere. Without --yes prints the plan and asks."""
    if not (nodes or rack or block or incident):
        raise BadUse("Nothing to drain is named; give nodes, --rack, --block or --incident.")
    usual, modes = _modes(mode or [])
    parameters: dict[str, Any] = {
        "nodes": list(dict.fromkeys(nodes or [])),
        "mode": usual,
        "deadline_seconds": _deadline_seconds({usual, *modes.values()}, deadline),
        "delete_emptydir_data": delete_emptydir_data,
        "force": force,
    }
    given = {"racks": rack, "blocks": block, "incident": incident, "modes": modes}
    parameters.update({name: value for name, value in given.items() if value})
    plan_then_ask(
        Ask(
            "drain",
            _confirmed(parameters, confirm, protected=confirm_protected, limits=past_limits),
            reason=reason,
            plan_hash=plan,
        ),
        Manner(dry_run=dry_run, yes=yes, wait=wait, wait_timeout=wait_timeout, output=output),
    )


def reschedule(
    job: Annotated[str, typer.Argument(help="namespace/name or UID of the workload.")],
    reason: Reason,
    dry_run: DryRun = False,
    confirm: Confirm = "",
    confirm_protected: ConfirmProtected = "",
    past_limits: PastLimits = "",
    plan: PlanHash = None,
    yes: Yes = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """Restart a job on nodes that are fit. Without --yes prints the plan and asks."""
    plan_then_ask(
        Ask(
            "reschedule",
            _confirmed({"job": job}, confirm, protected=confirm_protected, limits=past_limits),
            reason=reason,
            plan_hash=plan,
        ),
        Manner(dry_run=dry_run, yes=yes, wait=wait, wait_timeout=wait_timeout, output=output),
    )


def uncordon(
    nodes: Nodes,
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    confirm: Annotated[
        str, typer.Option(help="Names of nodes that Failing or a foreign cordon stands against.")
    ] = "",
    wait: Wait = False,
    wait_timeout: WaitTimeout = "5m",
    output: OutputOption = Output.TABLE,
) -> None:
    """Let the scheduler use nodes again."""
    parameters = _confirmed({"nodes": list(dict.fromkeys(nodes))}, confirm)
    ask = Ask("uncordon", parameters, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output))


def cancel(
    operation_id: Annotated[str, typer.Argument(metavar="ID", help="Of the operation.")],
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    wait: Wait = False,
    wait_timeout: WaitTimeout = "5m",
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop an operation after the step it is at; what it cordoned and suspended is set right."""
    ask = Ask("cancel", {"operation_id": operation_id}, reason=reason)
    ask_at_once(
        ask,
        Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output, cancels=True),
    )


def choose(
    operation_id: Annotated[str, typer.Argument(metavar="ID", help="Of the blocked operation.")],
    choice: Annotated[str, typer.Argument(help="One of the choices it offers.")],
    confirm: Confirm = "",
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """Answer a blocked operation. A dangerous choice wants --confirm with the text it names."""
    parameters = {"operation_id": operation_id, "choice": choice, "confirmation": confirm}
    ask = Ask("choose", parameters, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output))


def _confirmed(
    parameters: dict[str, Any], confirmation: str, *, protected: str = "", limits: str = ""
) -> dict[str, Any]:
    """The parameters with what was typed, each word in its own place."""
    typed = {
        "confirmation": confirmation,
        "accept_protected": protected,
        "past_limits": limits,
    }
    return {**parameters, **{name: words for name, words in typed.items() if words}}


def _modes(given: list[str]) -> tuple[str, dict[str, str]]:
    """The mode of all, and those of single pods or jobs, from MODE and NAMESPACE/NAME=MODE."""
    usual, modes = "now", {}
    for text in given:
        name, equals, mode = text.rpartition("=")
        if mode not in MODES:
            raise BadUse(f"--mode {mode!r} is none of {', '.join(MODES)}.")
        if equals:
            modes[name] = mode
        else:
            usual = mode
    return usual, modes


def _deadline_seconds(modes: set[str], deadline: str | None) -> float | None:
    if "deadline" in modes and deadline is None:
        raise BadUse("--mode deadline needs --deadline, such as --deadline 2h.")
    if deadline is not None and modes.isdisjoint({"deadline", "checkpoint"}):
        raise BadUse(
            f"--deadline means nothing with --mode {', '.join(sorted(modes))}; use --mode deadline."
        )
    return None if deadline is None else read_duration(deadline, option="--deadline")
