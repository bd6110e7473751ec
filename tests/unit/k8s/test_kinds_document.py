"""docs/kinds.md says of every kind what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

from k8s.workloads import KINDS

TEXT = (Path(__file__).parents[3] / "docs" / "kinds.md").read_text()
ROWS = re.findall(
    r"^\| `(\w+)` \| (\S+) \| .+? \| ([a-zA-Z ]+) \| (.+?) \| (\d{4}-\d\d-\d\d) \|$", TEXT, re.M
)


def test_every_kind_is_documented_with_its_api_and_its_proof() -> None:
    told = [(name, api, proof) for name, api, proof, _, _ in ROWS]
    assert told == [(kind.name, kind.resource.api_version, kind.proof) for kind in KINDS]
    assert len(re.findall(r"^\| `", TEXT, re.M)) == len(ROWS)
