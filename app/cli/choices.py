"""The choices of a blocked operation, as what must be typed to make them."""

import shlex
from typing import Any

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


def _command(operation: OperationRecord, choice: dict[str, Any]) -> str:
    words = ["pitwall", "choose", operation.id, str(choice.get("name"))]
    if choice.get("confirmation"):
        words += ["--confirm", str(choice["confirmation"])]
    return printable(shlex.join(words))
