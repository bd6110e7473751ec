"""axe-core, the checker of accessibility: fetched once through the machine's npm, since it is no part of ours."""

import os
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.browser.pages import ARTIFACTS

VERSION = "4.14.1"
GRAVE = ("serious", "critical")
FETCH_SECONDS = 60


@cache
def source() -> str:
    """The script; skips where it is neither named in PITWALL_AXE nor to be had from npm."""
    named = os.environ.get("PITWALL_AXE")
    if named:
        return Path(named).read_text(encoding="utf-8")
    folder = ARTIFACTS / f"axe-core-{VERSION}"
    script = folder / "axe.min.js"
    if not script.exists():
        _fetch(folder)
    return script.read_text(encoding="utf-8")


def grave_findings(page: Any, selector: str) -> list[str]:
    """What axe finds serious or critical in the part of the page, a line each."""
    page.evaluate(source())  # not as a script element: the page's own rules would stop it
    found = page.evaluate(
        "selector => axe.run(selector, { resultTypes: ['violations'] })", selector
    )
    return [
        f"{one['id']}: {one['help']} ({node['html'][:120]})"
        for one in found["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm to fetch axe-core with: install it, or name axe.min.js in PITWALL_AXE")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            [npm, "pack", f"axe-core@{VERSION}", "--silent"],
            cwd=folder, check=True, capture_output=True, timeout=FETCH_SECONDS,
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm could not fetch axe-core {VERSION} ({error}): name it in PITWALL_AXE")
    with tarfile.open(folder / f"axe-core-{VERSION}.tgz") as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        (folder / "axe.min.js").write_bytes(member.read())
