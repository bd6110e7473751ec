"""Captures of real machines judged offline; small excerpts of the same shape stand in a clone."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.errors import CaptureError
from collectors.inspection import Inspection, coalesce, find_kind, inspect_all
from collectors.log_capture import read_log, read_time
from tests.captures import RECORDED

EXCERPTS = Path(__file__).parents[2] / "data/captures"
PORTS = Path(__file__).parents[2] / "data/infiniband"
REAL = RECORDED


def there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is missing: the recorded capture cannot be judged")
    return path


def inspect(path: Path) -> Inspection:
    (found,) = inspect_all([there(path)])
    return found


def rules(found: Inspection) -> set[str]:
    return {finding.rule for finding in found.findings}


@pytest.mark.parametrize(
    "path", [EXCERPTS / "gsp-timeout.log", REAL / "gpud/dmesg-with-xid-119.log"], ids=str
)
def test_five_lines_are_as_many_events_as_the_window_makes_of_them(path: Path) -> None:
    capture = read_log(there(path))
    gaps = [
        round((later.at - earlier.at).total_seconds())
        for earlier, later in zip(capture.occurrences, capture.occurrences[1:], strict=False)
    ]
    assert gaps == [6, 6, 162, 181]
    counts = {
        window: len(coalesce(capture.occurrences, window_seconds=window))
        for window in (5.0, 60.0, 300.0)
    }
    assert counts == {5.0: 5, 60.0: 3, 300.0: 1}
    found = inspect(path)
    assert "5 events in windows of 5 s" in found.summary
    assert (found.health, rules(found)) == ("Failing", {"xid-119"})
    (finding,) = found.findings
    assert finding.gpu_uuid == capture.uuids["0000:9b:00.0"], "the log names its GPU"
    assert "5 times" in finding.message


def test_an_applications_exceptions_are_one_finding_and_no_drain() -> None:
    found = inspect(EXCERPTS / "application.log")
    assert [(event.xid, event.count) for event in found.events] == [(13, 16), (43, 1)]
    assert (found.health, rules(found)) == ("Healthy", {"xid-13", "xid-43"})
    assert not any(finding.changes_health for finding in found.findings)
    assert not any("Drain" in finding.action for finding in found.findings)


def test_the_recorded_exceptions_of_one_application_say_nothing_about_the_gpu(
    tmp_path: Path,
) -> None:
    lines = [row[3] for row in read_rows() if "(PCI:0000:38:00)" in row[3]]
    log = tmp_path / "recorded.log"
    log.write_text("\n".join(lines))
    found = inspect(log)
    assert [event.xid for event in found.events] == [13, 43]
    assert found.events[0].count == len(lines) - 1
    assert found.health == "Healthy"


@pytest.mark.parametrize(
    ("path", "gpus", "advice"),
    [
        (EXCERPTS / "smi-generation-4.xml", 2, {"persistence-off"}),
        (EXCERPTS / "smi-generation-5.xml", 2, set()),
        (REAL / "aicr/nvidia-smi-q-x-8xH100-570.86.15.xml", 8, {"persistence-off"}),
        (REAL / "k8s-test-infra/qx-h100.xml", 8, set()),
    ],
    ids=str,
)
def test_hosts_that_were_well_are_healthy_and_their_traps_no_faults(
    path: Path, gpus: int, advice: set[str]
) -> None:
    found = inspect(path)
    assert len(found.gpus) == gpus
    assert (found.health, rules(found)) == ("Healthy", advice)
    for gpu in found.gpus:
        assert gpu.memory_total_bytes == 81_559 << 20
        assert gpu.pcie_generation == gpu.pcie_generation_max
        assert (gpu.ecc_mode, gpu.ecc_uncorrected_total, gpu.recovery_action) == (True, 0, 0)
        assert (gpu.fabric_state, gpu.fabric_status, gpu.clocks_event_reasons) == (3, 0, 1)
        assert (gpu.sm_clock_max_hertz, gpu.temperature_margin_celsius is not None) == (
            1_980_000_000,
            True,
        )
        assert gpu.missing["nvlink_active_links"] == "not in this file"
    # What needs a second reading, or what is not in the file, is said to be unjudged.
    reasons = {one.rule: one.reason for one in found.unjudged}
    assert reasons["pcie-replay"] == reasons["slowdown-hardware"] == "needs a second reading"
    assert reasons["nvlink-down"] == "not in this file"
    assert reasons["gpu-held-idle"] == "needs the kubelet's word"


@pytest.mark.parametrize("path", [PORTS, REAL / "gpud/sys-class-infiniband-h100"], ids=str)
def test_a_tree_of_ports_is_found_and_its_full_counter_told(path: Path) -> None:
    found = inspect(path)
    assert re.match(
        r"[28] x InfiniBand ACTIVE at 400 Gb/s; 1 x Ethernet ACTIVE at 200 Gb/s$", found.summary
    )
    assert (found.health, rules(found)) == ("Healthy", {"infiniband-counter-full"})


def read_rows() -> list[list[str]]:
    path = there(REAL / "xid-lines/xid_lines.tsv")
    rows = list(csv.reader(path.open(), delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [row for row in rows if row[0] == "A"]


def test_recorded_lines_with_the_drivers_action_prefer_it(tmp_path: Path) -> None:
    lines = [row[3] for row in read_rows() if row[1] == "154" or "Xid (PCI:0009:01" in row[3]]
    log = tmp_path / "recorded.log"
    log.write_text("\n".join(lines))
    found = inspect(log)
    actions = {finding.rule: finding.action for finding in found.findings}
    told = [finding for finding in found.findings if finding.rule == "xid-154"]
    assert {finding.severity for finding in told} == {"critical", "fatal"}
    # The XID 149 on the same GPU carries what the driver asked for, not the catalogue's words.
    assert actions["xid-149"] == "Drain the node and reset the GPU (nvidia-smi --gpu-reset)."


def edit(tmp_path: Path, *changes: tuple[str, str]) -> Inspection:
    text = (EXCERPTS / "smi-generation-5.xml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "host.xml"
    path.write_text(text)
    return inspect(path)


@pytest.mark.parametrize(
    ("change", "rule", "health"),
    [
        (("failure>No", "failure>Yes"), "remap-failure", "Failing"),
        (("pending>No", "pending>Yes"), "remap-pending", "Degraded"),
        (("<dram_uncorrectable>0", "<dram_uncorrectable>2"), "ecc-uncorrected", "Failing"),
        (("secded>0", "secded>1"), "ecc-uncorrected", "Failing"),
        (("<current_ecc>Enabled", "<current_ecc>Disabled"), "ecc-off", "Failing"),
        (("low>0 bank", "low>1 bank"), "remap-bank-low", "Degraded"),
        (("tlimit>54 C", "tlimit>-1 C"), "temperature-margin-gone", "Failing"),
        (("tlimit>54 C", "tlimit>4 C"), "temperature-margin-low", "Degraded"),
        (("<state>Completed", "<state>In Progress"), "fabric-incomplete", "Failing"),
        (("action>None", "action>Reboot"), "recovery-reboot", "Failing"),
        (("<attached_gpus>2", "<attached_gpus>3"), "gpu-count", "Failing"),
        (("<serial>1650000000001", "<serial>GPU is lost"), "gpu-lost", "Failing"),
        (("<serial>1650000000001", "<serial>GPU requires reset"), "gpu-reset-required", "Failing"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_capture_is_found(
    tmp_path: Path, change: tuple[str, str], rule: str, health: str
) -> None:
    found = edit(tmp_path, change)
    assert (rules(found), found.health) == ({rule}, health)


def test_what_nvidia_smi_does_not_know_is_unknown_with_its_words(tmp_path: Path) -> None:
    found = edit(
        tmp_path,
        ("<gpu_temp>33 C", "<gpu_temp>N/A"),
        ("action>None", "action>Requested functionality has been deprecated"),
        ("util>0 %", "util>lots"),
        ("current_power_limit>700.00 W", "current_power_limit>-5 W"),
        ("<dram_correctable>0", "<dram_correctable>N/A"),
    )
    gpu = found.gpus[0]
    assert (gpu.temperature_celsius, gpu.recovery_action, gpu.gpu_utilization_ratio) == (
        None,
        None,
        None,
    )
    assert gpu.missing["temperature_celsius"] == "N/A"
    assert "deprecated" in gpu.missing["recovery_action"]
    assert "lots" in gpu.missing["gpu_utilization_ratio"]
    assert "implausible" in gpu.missing["power_limit_watts"]
    assert gpu.ecc_corrected_total == 0, "the sum of what is known"
    assert found.health == "Healthy"


def test_an_xml_beside_a_log_names_its_gpus() -> None:
    smi, log = inspect_all([EXCERPTS / "smi-generation-5.xml", EXCERPTS / "gsp-timeout.log"])
    assert log.findings[0].gpu_uuid == smi.gpus[1].uuid
    assert "GPU 1 (0000:9b:00.0)" in log.findings[0].message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[Sun Feb 23 16:24:18 2025] NVRM", datetime(2025, 2, 23, 16, 24, 18, tzinfo=UTC)),
        ("[ 4254.5] NVRM", datetime(1970, 1, 1, 1, 10, 54, 500_000, tzinfo=UTC)),
        (
            "kern  :warn  : 2025-01-21T04:41:44,283302+00:00 NVRM",
            datetime(2025, 1, 21, 4, 41, 44, 283_302, tzinfo=UTC),
        ),
        ("2025-01-21T04:41:44+02:00 h kernel", datetime(2025, 1, 21, 2, 41, 44, tzinfo=UTC)),
        ("Jun 10 03:09:55 host kernel: NVRM", datetime(2026, 6, 10, 3, 9, 55, tzinfo=UTC)),
        ("[Sun Feb 99 16:24:18 2025] NVRM", None),
        ("2025-19-41T99:41:44 h kernel", None),
        ("no time", None),
    ],
)
def test_times_are_read_in_the_forms_that_logs_have(line: str, expected: datetime | None) -> None:
    assert read_time(line, year=2026) == expected


def test_garbage_in_a_log_harms_nothing_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(
        b"\x00\xff\xfeXid \x80\n"
        + b"y" * 200_000
        + b"Xid\nNVRM: Xid (PCI:0000:10:00): \nNVRM: Xid (PCI:zz): 79\n"
        + b"6,1,99999999999999999999,-;NVRM: Xid (PCI:0000:10:00): 31, pid=1\n"
        + b"6,abc,1;NVRM: Xid (PCI:0000:10:00): 13, pid=1\n"
        + b"NVRM: Xid (PCI:0000:10:00): 79, GPU has fal"
    )
    found = inspect(path)
    assert sorted(event.xid for event in found.events) == [13, 31, 79]
    assert "lines cannot be read" in found.summary
    assert found.health == "Failing"


def test_a_log_of_noise_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"[ 1.0] IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready\n" * 16_000)
        file.write(b"NVRM: Xid (PCI:0000:10:00): 79, GPU has fallen off the bus.\n")
    assert path.stat().st_size > 60 << 20
    found = inspect(path)
    assert [event.xid for event in found.events] == [79]
    assert found.summary.startswith("1024001 lines, 1 with")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.xml", b"<nvidia_smi_log><gpu>", "not whole XML"),
        ("other.xml", b"<a><nvidia_smi_log/></a>", "holds <a>"),
        ("nothing.log", None, "cannot be read"),
    ],
)
def test_what_cannot_be_inspected_is_named(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaptureError, match=words) as error:
        inspect_all([path])
    assert str(path) in str(error.value)


def test_a_folder_without_ports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="sys/class/infiniband"):
        find_kind(tmp_path)
