"""The small parts, each one call: headline, figures, notes, sheets."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.ui import context, travel, words
from app.ui.components import kit
from app.ui.components.text import visible


def column(key: str, label: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    """One column of a sheet. kind: text, soft, mono, number, age, state, link, two, bar."""
    return {"key": key, "label": label, "kind": kind, **more}


def row(row_id: str, cells: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": row_id, "cells": dict(cells), **more}


def state(word: str, tone: str) -> dict[str, str]:
    return {"word": word, "tone": tone}


def link(text: str, target: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": visible(text), "open": dict(target)}


def sheet(
    key: str,
    *,
    label: str,
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    empty: str,
    **more: Any,
) -> None:
    """A table; a row with `open` is a way to its subject. Goes there when clicked."""
    data = {
        "now": _now(),
        "label": label,
        "columns": list(columns),
        "rows": list(rows),
        "empty": empty,
        **more,
    }
    travel.follow(kit.mount("sheet", data, key=key))


def headline(key: str, **data: Any) -> None:
    travel.follow(kit.mount("headline", {"now": _now(), **data}, key=key))


def card(key: str, **data: Any) -> None:
    """A titled panel of one subject: title, tone, at, lead (a sentence), facts."""
    travel.follow(kit.mount("card", {"now": _now(), **data}, key=key))


def figures(key: str, shown: Sequence[Mapping[str, Any]]) -> None:
    travel.follow(kit.mount("figures", {"now": _now(), "figures": list(shown)}, key=key))


def notes(key: str, shown: Sequence[Mapping[str, Any]]) -> None:
    """Sentences with a tone; shows nothing for none."""
    if shown:
        travel.follow(kit.mount("notes", {"now": _now(), "notes": list(shown)}, key=key))


def note(text: str, tone: str = "quiet", **more: Any) -> dict[str, Any]:
    return {"text": visible(text), "tone": tone, **more}


def fact(label: str, value: str | None, **more: Any) -> dict[str, Any]:
    return {"label": label, "value": value, **more}


def _now() -> int | None:
    return words.milliseconds(context.now())
