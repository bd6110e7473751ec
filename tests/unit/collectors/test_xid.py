"""Kernel lines into codes, and codes into what to do."""

from __future__ import annotations

import csv
import re

import pytest

from collectors.pci import normalise_pci
from collectors.xid import (
    CATALOGUE,
    RECOVERY_ACTIONS,
    SWITCH_CATALOGUE,
    XidEntry,
    find_entry,
    parse_kernel_line,
)
from tests.captures import RECORDED

XID_LINES = RECORDED / "xid-lines/xid_lines.tsv"

# The codes of the domain's table on H100, with the severity that this cluster uses.
SEVERITIES = {
    "info": {43, 121},
    "warning": {
        *(8, 11, 13, 31, 32, 44, 45, 56, 57, 58, 61, 63, 65, 68, 69, 92, 122, 123, 137),
        *range(144, 151),
        154,
    },
    "critical": {46, 48, 54, 62, 74, 94, 109, 110, 119, 120, 136},
    "fatal": {64, 79, 95, 140, 143},
}
APPLICATION = {8, 11, 13, 31, 32, 43, 45, 68, 69}


def test_the_catalogue_holds_every_code_once_with_its_severity() -> None:
    assert len({entry.code for entry in CATALOGUE}) == len(CATALOGUE)
    found: dict[str, set[int]] = {}
    for entry in CATALOGUE:
        found.setdefault(entry.severity, set()).add(entry.code)
    assert found == SEVERITIES


def test_the_application_class_never_changes_health_and_ends_with_time() -> None:
    assert {e.code for e in CATALOGUE if e.group == "application"} == APPLICATION
    for entry in CATALOGUE:
        if entry.code in APPLICATION:
            assert not entry.changes_health
            assert entry.cleared_by == "time"
    assert not find_entry(94).changes_health
    assert find_entry(79).changes_health


SWITCH_SEVERITIES = {
    "info": {20001, 20009, 20012, 22013, 10005},
    "warning": {10004, 11004, 12028, 19084},
    "critical": {20034, 14017, 11001, 12001, 12002, *range(24004, 24008)},
    "fatal": {12020, 22003, 22011, *range(23001, 23018)},
}


def test_the_catalogue_of_switches_holds_every_code_once_with_its_severity() -> None:
    assert len({entry.code for entry in SWITCH_CATALOGUE}) == len(SWITCH_CATALOGUE)
    found: dict[str, set[int]] = {}
    for entry in SWITCH_CATALOGUE:
        found.setdefault(entry.severity, set()).add(entry.code)
    assert found == SWITCH_SEVERITIES


@pytest.mark.parametrize(
    "entry",
    [*CATALOGUE, *SWITCH_CATALOGUE, find_entry(999), find_entry(999, kind="sxid")],
    ids=lambda entry: str(entry.code),
)
def test_each_code_is_explained_in_two_sentences_and_says_where_to_look(entry: XidEntry) -> None:
    assert entry.explanation.count(". ") == 1, entry.explanation
    assert entry.explanation.endswith(".")
    assert len(entry.explanation) < 250
    assert entry.look_at.endswith(".")
    assert entry.action.endswith(".")


def test_an_unknown_code_is_kept_as_a_warning() -> None:
    entry = find_entry(999)
    assert (entry.code, entry.severity) == (999, "warning")
    assert "catalogue" in entry.action


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "[ 4254.19] NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', GPU has fallen off.",
            (79, "xid", "0000:5d:00.0", None),
        ),
        (
            "NVRM: GPU 0000:65:00.0: GPU has fallen off the bus.",
            (79, "xid", "0000:65:00.0", None),
        ),
        (
            "NVRM: Xid (PCI:0018:01:00): 154, GPU recovery action changed from 0x4 (Drain and "
            "Reset) to 0x1 (GPU Reset Required)",
            (154, "xid", "0018:01:00.0", 1),
        ),
        ("NVRM: Xid (PCI:0000:02:00): 154, Node Reboot Required", (154, "xid", "0000:02:00.0", 2)),
        (
            "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel",
            (94, "xid", "0000:01:00.0", None),
        ),
        (
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 63 LTSSM Fault Up",
            (20034, "sxid", "0000:05:00.0", None),
        ),
        (
            "6,3964,206764307,-;NVRM: Xid (PCI:0000:10:1C): 63, pid=1850, Row Remapper",
            (63, "xid", "0000:10:1c.0", None),
        ),
    ],
)
def test_a_line_is_read_whatever_stands_before_it(
    line: str, expected: tuple[int, str, str, int | None]
) -> None:
    told = parse_kernel_line(line)
    assert told is not None
    assert (told.code, told.kind, told.pci_bus_id, told.recovery_action) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready",
        "NVRM: Xid (PCI:0000:5d:00): ",
        "NVRM: Xid (PCI:",
        "the word Xid alone",
        "my disk has fallen off the table",
        "NVRM: Xid (PCI:0000:5d:00): 99999999999, too long to be a code",
    ],
)
def test_a_line_without_a_code_is_none(line: str) -> None:
    assert parse_kernel_line(line) is None


def test_the_lines_after_a_switch_error_add_to_it() -> None:
    head = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, "
    first = parse_kernel_line(head + "Fatal, Link 62 LTSSM Fault Up")
    severity = parse_kernel_line(head + "Severity 1 Engine instance 62 Sub-engine instance 00")
    data = parse_kernel_line(head + "Data {0x50610002, 0x10100030}")
    assert [told and told.follow_on for told in (first, severity, data)] == [False, True, True]


def test_the_drivers_own_action_decides_about_154() -> None:
    for code, action in RECOVERY_ACTIONS.items():
        entry = find_entry(154, recovery=code)
        assert entry.severity == action.severity
        assert entry.action == action.action
    assert not find_entry(154, recovery=0).changes_health
    assert find_entry(154, recovery=2).cleared_by == "boot"
    assert find_entry(154, recovery=0x99).severity == "warning"


def test_switch_errors_are_graded() -> None:
    assert find_entry(23005, kind="sxid").severity == "fatal"
    assert find_entry(20034, kind="sxid").severity == "critical"
    assert find_entry(20012, kind="sxid").severity == "info"
    assert find_entry(11004, kind="sxid").severity == "warning"
    assert find_entry(30000, kind="sxid", text="Fatal, Link 1").severity == "critical"
    assert find_entry(30000, kind="sxid", text="Non-fatal, Link 1").severity == "warning"
    # The same number of an XID is another thing.
    assert find_entry(20034).name == "unknown code"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("00000000:65:00.0", "0000:65:00.0"),
        ("0000:9B:00", "0000:9b:00.0"),
        ("9b:00.0", "0000:9b:00.0"),
        ("0009:01:00.0", "0009:01:00.0"),
        ("not an address", None),
        ("", None),
    ],
)
def test_pci_addresses_have_one_spelling(written: str, meant: str | None) -> None:
    assert normalise_pci(written) == meant


def test_every_recorded_line_parses_to_its_code_and_address() -> None:
    if not XID_LINES.exists():
        pytest.skip(f"{XID_LINES} is missing: the recorded lines cannot be read")
    rows = list(csv.reader(XID_LINES.open(), delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    real = [row for row in rows if row[0] == "A"]
    assert len(real) > 20
    for row in real:
        told = parse_kernel_line(row[3])
        assert told is not None, row[3]
        assert (told.code, told.kind) == (int(row[1]), row[2].lower())
        address = re.search(r"PCI:([0-9a-fA-F:.]+)", row[3])
        assert address is not None
        assert told.pci_bus_id == normalise_pci(address[1])
