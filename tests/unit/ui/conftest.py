"""A page without a browser: Streamlit's AppTest on a store of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.settings import Settings
from app.ui import context
from tests.unit.ui.parts_seen import OpenView


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def open_view(store_url: str) -> Iterator[OpenView]:
    """Opens a view with its query as a browser would: the script's parts, then the view's."""
    context.use(Settings(store_url=store_url))
    st.cache_resource.clear()

    def open_it(path: str = "overview", **query: str) -> AppTest:
        test = AppTest.from_function(_script, kwargs={"path": path}, default_timeout=30)
        for name, value in query.items():
            test.query_params[name] = value
        return test.run()

    yield open_it
    st.cache_resource.clear()
    context.use(Settings())


def _script(path: str) -> None:
    from app.ui import navigation
    from app.ui.components import kit, pulse

    kit.mount_kit()
    navigation.pages()
    pulse.show()
    next(view for view in navigation.VIEWS if view.path == path).show()
