"""What every view stands on: the settings, the store, the cluster's name, the time, and who asks."""

import getpass
import os
from datetime import UTC, datetime

import streamlit as st
from sqlalchemy import Engine

from app.identity import Identity, SignInRefused, identity_of
from app.settings import Settings, read_settings
from app.store.engine import open_store
from app.ui.claims import claims_of_visitor

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


def identity() -> Identity | None:
    """Who is at the page, by a verified token where there is a sign-in; None where nobody has signed in.

    Without sign-in the page is open on loopback alone, so it is the user who runs it. Raises SignInRefused.
    """
    if settings().sign_in == "none":
        return Identity(_process_user())
    told = claims_of_visitor(settings())
    return None if told is None else identity_of(told, settings(), now=now())


def signed_in() -> Identity:
    """As identity. Raises SignInRefused where nobody is signed in any more."""
    found = identity()
    if found is None:
        raise SignInRefused("You are signed out: reload the page and sign in.")
    return found


def person() -> str:
    """The name of who is at the page. Raises SignInRefused."""
    return signed_in().username


def author() -> str:
    """Who asks; by what, where no token proved the name. Raises SignInRefused."""
    found = signed_in()
    return found.username if found.groups is not None else f"{found.username} (page)"


def _process_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
