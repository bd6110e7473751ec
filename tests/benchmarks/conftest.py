"""Benchmarks run only when their folder is asked for (`make bench`), never with the tests."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless an argument names it."""
    asked = any("benchmarks" in str(argument) for argument in config.invocation_params.args)
    return None if asked else True
