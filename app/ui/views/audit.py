"""Audit: who asked for what, and each write that came of it. Rows are only ever added."""

import csv
import io
from datetime import UTC

import streamlit as st

from app.store.page_records import AuditRecord
from app.store.reads.audit import audit_entries
from app.ui import context, live, travel, words
from app.ui.components import parts
from app.ui.guard import guarded

PAGE_ROWS = 100
EXPORT_ROWS = 20_000
OUTCOMES = ("done", "refused", "failed")
_TONES = {"done": "calm", "refused": "watch", "failed": "act"}


@guarded
def show() -> None:
    query = st.query_params
    parts.headline("audit-head", title="Audit")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        search = st.text_input(
            "Who, what, where or why",
            value=query.get("search", ""),
            placeholder="ana, evict, h100-a-r01-05",
            width=320,
            key="audit-search",
        ).strip()
        outcome = st.segmented_control(
            "Outcome",
            OUTCOMES,
            format_func=words.sentence,
            default=query.get("outcome") if query.get("outcome") in OUTCOMES else None,
            key="audit-outcome",
        )
        st.download_button(
            "Export CSV",
            data=lambda: export(search or None, outcome),
            file_name=f"pitwall-audit-{context.now():%Y%m%dT%H%M%SZ}.csv",
            mime="text/csv",
            key="audit-export",
            on_click="ignore",
            help=f"What the filters show, {EXPORT_ROWS:,} rows at most.",
        )
    kept = {"search": search, "outcome": outcome}
    wanted = {name: value for name, value in kept.items() if value}
    if wanted != {name: value for name, value in query.items() if name != "after"}:
        st.query_params.from_dict(wanted)
    _rows(search or None, outcome)


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows(search: str | None, outcome: str | None) -> None:
    after = st.query_params.get("after", "")
    found = audit_entries(
        context.engine(),
        context.cluster(),
        search=search,
        outcome=outcome,
        limit=PAGE_ROWS + 1,
        after=int(after) if after.isdecimal() and len(after) < 19 else None,
    )
    shown = found[:PAGE_ROWS]
    parts.sheet(
        "audit",
        label="Audit rows, the newest first",
        rows=[_row(entry) for entry in shown],
        columns=[
            parts.column("at", "UTC", "mono"),
            parts.column("age", "Ago", "age", right=True),
            parts.column("author", "Asked by"),
            parts.column("action", "What"),
            parts.column("target", "Target and words", "two"),
            parts.column("outcome", "Outcome", "state"),
            parts.column("actor", "Written by", "soft"),
        ],
        empty="Nothing matches. Clear the search or the outcome."
        if search or outcome
        else "Nothing was asked for or written yet.",
    )
    with st.container(horizontal=True, gap="small"):
        if after and st.button("Newest", key="audit-first"):
            st.query_params.pop("after", None)
            st.rerun(scope="fragment")
        if len(found) > PAGE_ROWS and st.button("Older", key="audit-next"):
            st.query_params["after"] = str(shown[-1].id)
            st.rerun(scope="fragment")


def _row(entry: AuditRecord) -> dict[str, object]:
    target: dict[str, object] = {"text": entry.target or "the cluster", "second": entry.message}
    if entry.operation_id:
        target |= {"open": travel.operation(entry.operation_id)}
    return parts.row(
        str(entry.id),
        {
            "at": f"{entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "age": words.milliseconds(entry.at),
            "author": entry.author,
            "action": f"{entry.action} (dry-run)" if entry.dry_run else entry.action,
            "target": target,
            "outcome": parts.state(
                words.sentence(entry.outcome), _TONES.get(entry.outcome, "quiet")
            ),
            "actor": entry.actor,
        },
    )


def export(search: str | None, outcome: str | None) -> str:
    """The rows as CSV. What begins like a formula gets an apostrophe before it: a sheet would run it."""
    found = audit_entries(
        context.engine(), context.cluster(), search=search, outcome=outcome, limit=EXPORT_ROWS
    )
    sink = io.StringIO()
    writer = csv.writer(sink)
    fields = AuditRecord.__struct_fields__
    writer.writerow(fields)
    for entry in found:
        writer.writerow([_cell(getattr(entry, name)) for name in fields])
    return sink.getvalue()


def _cell(value: object) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else "" if value is None else str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
