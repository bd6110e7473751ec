"""Settings: what this page's process runs with. Changed in its environment, never here."""

from typing import Any

import streamlit as st
from pydantic_core import PydanticUndefined
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.settings import Settings
from app.ui import context
from app.ui.components import parts
from app.ui.guard import guarded

HIDDEN = ("token",)
"""Settings whose value is a secret: only whether it is set is told."""


@guarded
def show() -> None:
    parts.headline(
        "settings-head",
        title="Settings",
        facts=[
            parts.fact("Cluster", context.cluster()),
            parts.fact("Read from", "PITWALL_* variables of this process"),
            parts.fact("Worker and ingest", "have environments of their own"),
        ],
    )
    search = st.text_input(
        "Name or meaning", width=320, key="settings-search", placeholder="drains, probation"
    )
    rows = rows_of(context.settings(), search.strip().lower())
    parts.sheet(
        "settings",
        label="Settings",
        rows=rows,
        columns=[
            parts.column("name", "Variable", "mono"),
            parts.column("value", "Value", "mono", missing="not set"),
            parts.column("changed", "Set", "soft"),
            parts.column("meaning", "Meaning", wrap=True, missing="see docs/settings.md"),
        ],
        empty="No setting matches. Clear the search.",
    )


def rows_of(settings: Settings, search: str = "") -> list[dict[str, Any]]:
    """The settings in their order, those that the search names, what the site has set marked."""
    rows = []
    for name, field in Settings.model_fields.items():
        value, meaning = getattr(settings, name), field.description or ""
        variable = f"PITWALL_{name.upper()}"
        if search and search not in f"{variable} {meaning}".lower():
            continue
        default = (
            field.get_default(call_default_factory=True)
            if field.default is PydanticUndefined
            else field.default
        )
        rows.append(
            parts.row(
                name,
                {
                    "name": variable,
                    "value": said(name, value),
                    "changed": "set here" if value != default else "default",
                    "meaning": meaning or None,
                },
            )
        )
    return rows


def said(name: str, value: object) -> str | None:
    """A value for people: no secret, no password of an address."""
    if value is None or value in ((), {}, ""):
        return None
    if name in HIDDEN:
        return "set, not shown"
    if name.endswith("_url"):
        try:
            return make_url(str(value)).render_as_string(hide_password=True)
        except ArgumentError:
            return str(value) if "@" not in str(value) else "set, not shown"
    return str(value)
