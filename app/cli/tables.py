"""Plain aligned tables: a column is one entry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Reads a cell from a record and the present.
Cell = Callable[[Any, datetime], str]


@dataclass(frozen=True)
class Column:
    """A column's title and how its cell is read; `wide` ones are shown by -o wide alone."""

    title: str
    cell: Cell
    wide: bool = False


def lay_out(
    records: Sequence[Any], columns: Sequence[Column], *, now: datetime, wide: bool
) -> list[str]:
    """Lines of a table, its titles first. Cells hold no line break."""
    shown = [column for column in columns if wide or not column.wide]
    rows = [[column.title for column in shown]]
    rows += [[_one_line(column.cell(record, now)) for column in shown] for record in records]
    return align(rows)


def align(rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Rows of cells as lines with two blanks between columns, the last column left ragged."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (
            indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def known(value: object, unit: str = "") -> str:
    """The value as text, "-" when it is unknown."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}{unit}"
    return f"{value}{unit}"


def printable(text: str) -> str:
    """The text on one line. What a kernel log or a pod's name could smuggle to a terminal is shown as ?."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _one_line(text: str) -> str:
    return printable(text) or "-"
