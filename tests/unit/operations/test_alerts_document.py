"""docs/alerts.md shows a file that is taken, with every table and key that there is."""

import re
from pathlib import Path

from app.alerts.config import (
    AlertConfig,
    Escalation,
    Inhibition,
    QuietHours,
    Receiver,
    Root,
    Route,
    parse_config,
)
from app.alerts.message import check_templates

TEXT = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()
EXAMPLE = TEXT.split("```toml\n")[1].split("```")[0]
NOT_SHOWN = {Route: {"group_by", "group_wait_seconds", "group_interval_seconds", "repeat_seconds", "route"}, Root: {"also_with_alertmanager"}}  # fmt: skip


def test_the_example_is_taken_and_its_templates_render() -> None:
    config = parse_config(EXAMPLE)
    check_templates(config.templates, cluster="c", page_url="http://127.0.0.1:8501")
    assert [one.name for one in config.receiver] == ["pager", "chat"]


def test_every_key_is_shown() -> None:
    for kind in (Receiver, Route, Root, Inhibition, QuietHours, Escalation):
        for name in set(kind.__struct_encode_fields__) - NOT_SHOWN.get(kind, set()):
            assert re.search(rf"^#? ?{name} =|\b{name} =", EXAMPLE + TEXT, re.M), (
                f"{kind.__name__}.{name}"
            )
    for table in AlertConfig.__struct_encode_fields__:
        assert f"[{table}]" in EXAMPLE, table
