"""Processes import what they start, and nothing that belongs to the others."""

import json
import subprocess
import sys

import pytest

PAGE_AND_STORE = (
    "streamlit",
    "plotly",
    "sqlmodel",
    "sqlalchemy",
    "fastapi",
    "apscheduler",
    "numpy",
)

LOADED = """
import json, sys
from app.cli.program import build
build()
{imports}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def _loaded(imports: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(imports=imports)], capture_output=True, text=True, check=True
    )  # fmt: skip
    return set(json.loads(done.stdout))


def test_the_agent_loads_neither_page_nor_store() -> None:
    loaded = _loaded("import collectors.agent")
    assert loaded.isdisjoint(PAGE_AND_STORE)
    assert "pynvml" in loaded  # so that the list above was taken after the agent was there


def test_the_command_line_of_people_loads_neither_page_nor_store_nor_cluster() -> None:
    assert _loaded("").isdisjoint((*PAGE_AND_STORE, "kubernetes", "pynvml"))


@pytest.mark.parametrize(
    "command",
    [
        "agent", "ingest", "worker", "web", "demo", "simulate", "simulate-agents", "migrate", "status",
        "nodes", "gpus", "jobs", "incidents", "operations", "drain", "uncordon", "reschedule", "cancel", "choose",
    ],
)  # fmt: skip
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from app.cli import main

    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"pitwall {command}" in capsys.readouterr().out
