"""`pitwall inspect` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.program import build, main

DATA = Path(__file__).parents[2] / "data"
RUNNER = CliRunner()


def run(*arguments: object) -> str:
    answer = RUNNER.invoke(build(), ["inspect", *map(str, arguments)])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_log_is_told_with_its_cause_and_what_to_do() -> None:
    text = run(DATA / "captures/gsp-timeout.log")
    assert "kernel log, 11 lines, 5 with an XID or SXid, 5 events in windows of 5 s" in text
    assert "critical xid-119: XID 119: GSP RPC time-out" in text
    assert "Look at: The function that the line expected" in text
    assert "Do: Drain the node and reset the GPU" in text


def test_the_window_is_the_persons_choice_and_shown() -> None:
    log = DATA / "captures/gsp-timeout.log"
    assert "1 events in windows of 300 s" in run(log, "--window-seconds", "300")
    assert "2026-02-22 10:00:18  2026-02-22 10:06:13  XID 119  5" in run(
        log, "--window-seconds", "300", "-o", "wide"
    )


def test_findings_alike_are_told_together_with_one_action() -> None:
    text = run(DATA / "captures/smi-generation-4.xml")
    assert "Healthy: no open finding" in text
    assert text.count("advice   persistence-off") == 2
    assert text.count("Do: ") == 1
    assert "Not judged, this capture does not hold what they need:" in text
    assert "  nvlink-down        not in this file" in text


def test_json_holds_the_findings_of_each_file() -> None:
    documents = json.loads(
        run(DATA / "infiniband", DATA / "captures/application.log", "-o", "json")
    )
    assert [document["kind"] for document in documents] == ["InfiniBand", "kernel log"]
    assert documents[0]["findings"][0]["rule"] == "infiniband-counter-full"
    assert documents[1]["events"][0]["count"] == 16


def test_a_sites_rules_are_used_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[rules.persistence-off]\nenabled = false\n")
    capture = DATA / "captures/smi-generation-4.xml"
    assert "persistence-off" not in run(capture, "--rules", rules)
    rules.write_text("[rules.persistence-off]\nlimit = 3\n")
    with pytest.raises(SystemExit) as error:
        main(["inspect", str(capture), "--rules", str(rules)])
    assert error.value.code == 1
    assert "[rules.persistence-off] has no field limit" in capsys.readouterr().err


def test_a_control_sequence_in_a_log_does_not_reach_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    log.write_bytes(b"NVRM: Xid (PCI:0000:10:00): 79, \x1b[2Jpid=1\n")
    assert "\x1b" not in run(log, "-o", "wide")
