"""What AppTest can see of our parts: it knows them as unknown elements, their data is in the message."""

import json
from collections.abc import Callable
from typing import Any

from streamlit.testing.v1 import AppTest

OpenView = Callable[..., AppTest]


def parts_of(test: AppTest) -> dict[str, Any]:
    """Each JSON part's data by its key."""
    found: dict[str, Any] = {}
    _collect(test.main, found)
    return found


def said(test: AppTest) -> str:
    """Everything the parts say, as one text."""
    return json.dumps(parts_of(test), ensure_ascii=False)


def _collect(block: Any, found: dict[str, Any]) -> None:
    for child in block.children.values():
        proto = getattr(child, "proto", None)
        if hasattr(child, "children"):
            _collect(child, found)
        elif hasattr(proto, "component_name") and proto.WhichOneof("data") == "json":
            found[child.key] = json.loads(proto.json)
