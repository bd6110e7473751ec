"""The views by address, and the way from one to another. A new view is one entry of VIEWS."""

from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from app.ui.views import incidents, jobs, nodes, operations, overview


class View(NamedTuple):
    path: str
    title: str
    show: Callable[[], None]


VIEWS = (
    View("overview", "Overview", overview.show),
    View("nodes", "Nodes", nodes.show),
    View("jobs", "Jobs", jobs.show),
    View("incidents", "Incidents", incidents.show),
    View("operations", "Operations", operations.show),
)


def pages() -> list[Any]:
    """Streamlit's pages, the first being where one lands."""
    made = {
        view.path: st.Page(
            view.show, title=view.title, url_path=view.path, default=view is VIEWS[0]
        )
        for view in VIEWS
    }
    st.session_state["pages"] = made
    return list(made.values())
