"""What every view stands on: the settings, the store, the cluster's name, the time, and who asks."""

import getpass
import os
from datetime import UTC, datetime

import streamlit as st
from sqlalchemy import Engine

from app.settings import Settings, read_settings
from app.store.engine import open_store

_given: Settings | None = None


def use(settings: Settings) -> None:
    """Makes these the settings of this process's page; called once by app.ui.server before it starts."""
    global _given
    _given = settings


def settings() -> Settings:
    return _given or read_settings()


def engine() -> Engine:
    return _engine(settings().store_url)


@st.cache_resource(show_spinner=False)
def _engine(store_url: str) -> Engine:
    return open_store(store_url)


def cluster() -> str:
    return settings().cluster


def now() -> datetime:
    return datetime.now(UTC)


def person() -> str:
    """Who is at the page. Without sign-in it is open on loopback alone, so it is the user who runs it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def author() -> str:
    """Who asks, and by what."""
    return f"{person()} (page)"
