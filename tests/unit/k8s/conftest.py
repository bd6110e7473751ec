from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_api import ScriptedApi

from k8s.client import Connection, connect


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    served = ScriptedApi()
    yield served
    served.stop()


@pytest.fixture
def connection(api: ScriptedApi, tmp_path: Path) -> Connection:
    return connect(api.kubeconfig(tmp_path), connect_timeout_seconds=2, read_timeout_seconds=2)
