"""The choices of a blocked operation: as lines to type, and which one was meant."""

import shlex
from typing import Any

from app.cli.outcome import BadUse, CommandFailed
from app.cli.tables import printable
from app.store.records import OperationRecord


def choice_lines(operation: OperationRecord) -> list[str]:
    """Each choice as the command that makes it, with what it does and its warning; [] without any."""
    lines: list[str] = []
    for choice in operation.choices:
        lines.append(f"  {_command(operation, choice)}")
        said = (str(choice.get(key) or "") for key in ("label", "warning"))
        lines += [f"    {printable(text)}" for text in said if text]
    return ["", "It waits for a choice:", *lines] if lines else []


def pick_choice(
    operation: OperationRecord, *, choice: str, subject: str | None, confirmation: str
) -> dict[str, Any]:
    """The parameters of the request that makes a choice.

    Raises CommandFailed when it is not offered, BadUse when it is offered for several subjects and
    neither `subject` nor what was typed tells which.
    """
    named = [one for one in operation.choices if one.get("name") == choice]
    if not named:
        offered = ", ".join(str(one.get("name")) for one in operation.choices) or "none"
        raise CommandFailed(
            f"Operation {operation.id} is {operation.state} and does not offer {choice!r} (offered: "
            f"{offered}); see `pitwall operations {operation.id}`."
        )
    meant = [one for one in named if subject is None or one.get("subject") == subject]
    if len(meant) > 1 and confirmation:
        meant = [one for one in meant if one.get("confirmation") == confirmation]
    if len(meant) != 1:
        subjects = ", ".join(str(one.get("subject")) for one in named)
        raise BadUse(f"{choice!r} is offered for {subjects}; say which by --subject.")
    parameters: dict[str, Any] = {"operation_id": operation.id, "choice": choice}
    if meant[0].get("subject"):
        parameters["subject"] = meant[0]["subject"]
    return {**parameters, "confirmation": confirmation}


def _command(operation: OperationRecord, choice: dict[str, Any]) -> str:
    words = ["pitwall", "choose", operation.id, str(choice.get("name"))]
    twins = [one for one in operation.choices if one.get("name") == choice.get("name")]
    if len(twins) > 1 and choice.get("subject"):
        words += ["--subject", str(choice["subject"])]
    if choice.get("confirmation"):
        words += ["--confirm", str(choice["confirmation"])]
    return printable(shlex.join(words))
