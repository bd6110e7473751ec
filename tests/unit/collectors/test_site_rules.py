"""A site's thresholds: what they change, and what is refused with its entry and field named."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.conditions import Field
from collectors.errors import RulesError
from collectors.health import BUILT_IN, RULES, NodeFacts, RuleSet
from collectors.judgement import judge
from collectors.ledger import Ledger, Moment
from collectors.readings import GpuReading
from collectors.rule import Rule
from collectors.settings import AgentSettings
from collectors.site_rules import load_rules


def write(directory: Path, text: str) -> RuleSet:
    path = directory / "rules.toml"
    path.write_text(text)
    return load_rules(path)


def find(rules: RuleSet, name: str) -> Rule:
    return next(rule for rule in (*rules.gpu, *rules.node, *rules.port) if rule.name == name)


def test_without_a_file_the_built_in_rules_hold() -> None:
    assert load_rules(None) is BUILT_IN


def test_a_site_sets_limits_times_and_severities(tmp_path: Path) -> None:
    rules = write(
        tmp_path,
        """
        [rules.temperature-margin-low]
        margin_celsius = 8
        severity = "critical"
        hold_seconds = 60
        [rules.clock-locked-low]
        clock_ratio = 0.5
        [rules.infiniband-port-flaps]
        returns = 5
        """,
    )
    low = find(rules, "temperature-margin-low")
    assert low.test({"temperature_margin_celsius": 7.0}.get) is True
    assert low.test({"temperature_margin_celsius": 9.0}.get) is False
    assert (low.severity, low.hold_seconds, low.keep_firing_seconds) == ("critical", 60.0, 60.0)
    locked = find(rules, "clock-locked-low")
    assert locked.test(locked.fires.get) is False
    assert find(rules, "infiniband-port-flaps").test({"returns": 3}.get) is False
    assert find(rules, "ecc-off") is find(BUILT_IN, "ecc-off")


def test_a_rule_that_is_turned_off_opens_nothing_and_closes_what_it_had_opened(
    tmp_path: Path,
) -> None:
    rules = write(tmp_path, "[rules.remap-pending]\nenabled = false\n")
    assert len(rules.names) == len(RULES) - 1
    now = datetime(2026, 3, 1, tzinfo=UTC)
    reading = GpuReading(uuid="GPU-0", remap_pending=True)
    moment = Moment(now, "boot", lambda: "e1")
    ledger = judge(Ledger(), moment=moment, facts=NodeFacts(), gpus=[reading])
    assert [finding.rule for finding in ledger.findings] == ["remap-pending"]
    ledger = judge(ledger, moment=moment, facts=NodeFacts(), gpus=[reading], rules=rules)
    assert ledger.findings == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rules.no-such-rule]\nenabled = true\n", ("no-such-rule", "temperature-margin-low")),
        ("[rules.ecc-off]\nlimit = 3\n", ("ecc-off", "limit", "hold_seconds")),
        ("[rules.pcie-replay]\nreplays_per_minute = 'many'\n", ("pcie-replay", "replays_per")),
        ("[rules.pcie-replay]\nreplays_per_minute = true\n", ("pcie-replay", "finite number")),
        ("[rules.pcie-replay]\nreplays_per_minute = nan\n", ("pcie-replay", "finite number")),
        ("[rules.ecc-off]\nseverity = 'bad'\n", ("ecc-off", "severity", "critical")),
        ("[rules.ecc-off]\nhold_seconds = -1\n", ("ecc-off", "hold_seconds")),
        ("[rules.ecc-off]\nenabled = 'no'\n", ("ecc-off", "enabled", "true or false")),
        ("[rules]\necc-off = 3\n", ("ecc-off", "table")),
        ("rules = 3\n", ("rules",)),
        ("[thresholds]\n", ("thresholds", "[rules.NAME]")),
        ("[rules\n", ("TOML",)),
    ],
)
def test_an_error_names_the_file_the_entry_and_the_field(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(RulesError) as error:
        write(tmp_path, text)
    for word in ("rules.toml", *words):
        assert word in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="PITWALL_RULES"):
        load_rules(tmp_path / "nothing.toml")


def test_the_agent_finds_the_file_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITWALL_RULES", "/etc/pitwall/rules.toml")
    assert AgentSettings().rules == Path("/etc/pitwall/rules.toml")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_rule_has_two_knobs_of_one_name(rule: Rule) -> None:
    knobs = [condition.knob for condition in rule.conditions if condition.knob]
    assert len(set(knobs)) == len(knobs)


def test_the_table_in_the_documents_is_the_table_in_the_code() -> None:
    text = (Path(__file__).parents[3] / "docs/rules.md").read_text()
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        (
            f"`{rule.name}`",
            rule.severity,
            f"{rule.hold_seconds:g}",
            f"{rule.keep_firing_seconds:g}",
            ", ".join(
                f"`{condition.knob}` "
                f"{condition.limit.factor if isinstance(condition.limit, Field) else condition.limit}"
                for condition in rule.conditions
                if condition.knob
            )
            or "none",
            rule.source,
        )
        for rule in RULES
    ]
