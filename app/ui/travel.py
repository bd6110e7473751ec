"""Going from view to view, the subject in the address, so that what one sees can be shared."""

from collections.abc import Mapping
from typing import Any

import streamlit as st


def to(page: str, **query: str) -> dict[str, Any]:
    """A target that a part's link or row carries to the browser and brings back when clicked."""
    return {"page": page, "query": query}


def node(name: str) -> dict[str, Any]:
    return to("nodes", name=name)


def job(uid: str) -> dict[str, Any]:
    return to("jobs", uid=uid)


def incident(incident_id: str) -> dict[str, Any]:
    return to("incidents", id=incident_id)


def operation(operation_id: str) -> dict[str, Any]:
    return to("operations", id=operation_id)


def follow(target: Mapping[str, Any] | None) -> None:
    """Goes where a click in the browser wants. What came back is the browser's word: unknown pages are ignored."""
    if target is None:
        return
    pages = st.session_state.get("pages", {})
    page, query = pages.get(target.get("page")), target.get("query")
    if page is None:
        return
    known = query if isinstance(query, Mapping) else {}
    st.switch_page(page, query_params={str(key): str(value) for key, value in known.items()})
