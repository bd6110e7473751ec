"""The views by address, and the way from one to another. A new view is one entry of VIEWS."""

from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from app.ui.views import (
    alerts,
    audit,
    automatic,
    capacity,
    incidents,
    jobs,
    nodes,
    operations,
    overview,
    settings,
    sources,
)

MORE = "More"


class View(NamedTuple):
    path: str
    title: str
    show: Callable[[], None]
    group: str = ""  # of the menu; those without one stand beside each other


VIEWS = (
    View("overview", "Overview", overview.show),
    View("nodes", "Nodes", nodes.show),
    View("jobs", "Jobs", jobs.show),
    View("incidents", "Incidents", incidents.show),
    View("operations", "Operations", operations.show),
    View("alerts", "Alerts", alerts.show),
    View("capacity", "Capacity", capacity.show),
    View("automatic", "Automatic", automatic.show, MORE),
    View("audit", "Audit", audit.show, MORE),
    View("sources", "Sources", sources.show, MORE),
    View("settings", "Settings", settings.show, MORE),
)


def pages() -> dict[str, list[Any]]:
    """Streamlit's pages by their group of the menu, the first being where one lands."""
    made = {
        view.path: st.Page(
            view.show, title=view.title, url_path=view.path, default=view is VIEWS[0]
        )
        for view in VIEWS
    }
    st.session_state["pages"] = made
    groups: dict[str, list[Any]] = {}
    for view in VIEWS:
        groups.setdefault(view.group, []).append(made[view.path])
    return groups
