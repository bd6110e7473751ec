"""Faults switched on from outside reach a pushed report, by real ctypes calls."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from collectors.health import node_health
from collectors.report import Report

if TYPE_CHECKING:
    from .conftest import Node


def open_rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def health(report: Report) -> str:
    return node_health(report.findings, report.nvml)[0]


def test_a_healthy_node_reports_every_gpu_in_base_units(node: Node) -> None:
    node.start()
    node.driver.set_gpu(3, utilization=50)
    first = node.ingest.wait(lambda report: report.nvml.answering)
    assert set(first.gpus[3].missing.values()) <= {"needs a second sample"}
    report = node.ingest.wait(lambda report: report.nvml.answering and not report.gpus[3].missing)
    assert (report.cluster, report.node, report.driver_version) == ("test", "node-1", "580.105.08")
    assert len(report.gpus) == report.expected_gpus == 8
    assert health(report) == "Healthy"
    gpu = report.gpus[3]
    assert gpu.uuid == node.driver.uuid(3)
    assert gpu.pci_bus_id == "0000:43:00.0"
    assert (gpu.temperature_celsius, gpu.memory_temperature_celsius) == (35.0, 41.0)
    assert (gpu.power_watts, gpu.power_limit_watts) == (70.0, 700.0)
    assert gpu.energy_joules_total == 1e6
    assert (gpu.sm_clock_hertz, gpu.memory_clock_hertz) == (1_980_000_000, 2_619_000_000)
    assert gpu.memory_total_bytes == 81559 << 20
    assert (gpu.nvlink_active_links, gpu.nvlink_crc_errors_total) == (18, 1)
    assert (gpu.fabric_state, gpu.fabric_status, gpu.recovery_action) == (3, 0, 0)
    assert (gpu.sm_activity_ratio, gpu.dram_activity_ratio) == (0.5, 0.25)
    assert gpu.nvlink_transmit_bytes_per_second == 1 << 30
    assert (gpu.mig_mode, gpu.mig_devices, gpu.missing) == (False, (), {})


def test_a_gpu_that_mig_cuts_tells_its_instances_and_not_what_it_cannot_know(node: Node) -> None:
    node.driver.set(mig=1)
    node.start()
    gpu = node.ingest.wait(lambda report: report.nvml.answering).gpus[2]
    assert gpu.mig_mode is True
    assert [
        (part.uuid, part.gpu_instance_id, part.memory_used_bytes) for part in gpu.mig_devices
    ] == [
        ("MIG-0002-0000", 1, 10 << 30),
        ("MIG-0002-0001", 2, 10 << 30),
    ]
    assert (gpu.gpu_utilization_ratio, gpu.sm_activity_ratio) == (None, None)
    assert gpu.missing["gpu_utilization_ratio"] == "not supported"
    assert gpu.missing["sm_activity_ratio"] == "not supported under MIG"


def test_a_driver_without_gpm_leaves_activity_unknown(node: Node) -> None:
    node.driver.set(no_gpm=1)
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    gpu = node.ingest.wait(lambda report: report.sequence >= 3).gpus[0]
    assert gpu.missing["tensor_activity_ratio"] == "not supported"
    assert set(gpu.missing.values()) == {"not supported"}


def test_a_missing_symbol_is_unknown_and_never_a_number(old_node: Node) -> None:
    old_node.start()
    gpu = old_node.ingest.wait(
        lambda report: (
            report.nvml.answering and "needs a second sample" not in report.gpus[0].missing.values()
        )
    ).gpus[0]
    assert gpu.temperature_margin_celsius is None
    assert gpu.missing == {"temperature_margin_celsius": "not supported"}
    # The older names of the same calls are used where the newer are missing.
    assert gpu.clocks_event_reasons == 1
    assert gpu.fabric_state == 3


def test_ecc_off_leaves_error_counts_unknown(node: Node) -> None:
    node.driver.set_gpu(0, ecc_off=1)
    node.start()
    gpu = node.ingest.wait(lambda report: report.nvml.answering).gpus[0]
    assert gpu.ecc_mode is False
    assert gpu.ecc_uncorrected_total is None
    assert gpu.missing["ecc_uncorrected_total"] == "not supported"


def test_each_field_value_is_checked_by_its_own_return(node: Node) -> None:
    node.driver.set_gpu(2, field_error=3)
    node.start()
    gpus = node.ingest.wait(lambda report: report.nvml.answering).gpus
    assert gpus[2].memory_temperature_celsius is None
    assert gpus[2].missing["memory_temperature_celsius"] == "not supported"
    assert gpus[2].nvlink_crc_errors_total is None
    assert gpus[1].memory_temperature_celsius == 41.0


def test_a_lost_gpu_keeps_its_name_and_makes_the_node_failing(node: Node) -> None:
    node.start(PITWALL_PUSH_INTERVAL_SECONDS=30)
    node.ingest.wait(lambda report: report.nvml.answering)
    node.driver.set_gpu(5, error=15, open_error=15)
    switched_at = time.monotonic()
    report = node.ingest.wait(lambda report: "gpu-lost" in open_rules(report))
    assert time.monotonic() - switched_at < 1.5
    assert report.trigger == "change"
    (finding,) = report.findings
    assert finding.gpu_uuid == node.driver.uuid(5)
    assert finding.severity == "fatal"
    lost = next(gpu for gpu in report.gpus if gpu.uuid == node.driver.uuid(5))
    assert (lost.error_code, lost.pci_bus_id, lost.index) == (15, "0000:65:00.0", 5)
    assert lost.temperature_celsius is None
    assert health(report) == "Failing"
    assert len(report.gpus) == 8


def test_a_gpu_lost_before_the_agent_came_back_is_named_from_memory(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.stop()
    node.driver.set_gpu(5, error=15, open_error=15)
    node.start()
    report = node.ingest.wait(lambda report: "gpu-lost" in open_rules(report))
    assert report.findings[0].gpu_uuid == node.driver.uuid(5)


def test_a_gpu_that_is_gone_from_the_count_is_named(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.driver.set_gpu(6, removed=1)
    report = node.ingest.wait(lambda report: "gpu-count" in open_rules(report))
    (finding,) = report.findings
    assert (report.expected_gpus, len(report.gpus)) == (8, 7)
    assert finding.gpu_uuid == node.driver.uuid(6)
    assert node.driver.uuid(6) in finding.message


def test_memory_faults_open_their_findings_and_a_reset_closes_them(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.driver.set_gpu(1, ecc_uncorrected=2, remap_pending=1)
    report = node.ingest.wait(lambda report: open_rules(report) >= {"ecc-uncorrected"})
    assert open_rules(report) == {"ecc-uncorrected", "remap-pending"}
    node.driver.set_gpu(1, ecc_uncorrected=0, remap_pending=0)
    recovered = node.ingest.wait(
        lambda later: later.sequence > report.sequence and not later.findings
    )
    assert health(recovered) == "Healthy"


def test_an_xid_of_nvml_and_of_the_kernel_log_is_one_event(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.driver.raise_xid(4, 79)
    node.write_kernel(
        "[ 1.0] NVRM: Xid (PCI:0000:54:00): 79, pid='<unknown>', GPU has fallen off the bus."
    )
    first = node.ingest.wait(lambda report: bool(report.xids))
    node.ingest.wait(lambda report: report.sequence >= first.sequence + 2)
    events = {event.event_id: event for report in node.ingest.reports for event in report.xids}
    assert len(events) == 1
    (event,) = events.values()
    assert (event.xid, event.gpu_uuid, event.count) == (79, node.driver.uuid(4), 1)
    assert event.window_seconds == 5.0
    findings = {
        finding.episode: finding for report in node.ingest.reports for finding in report.findings
    }
    (finding,) = findings.values()
    assert (finding.rule, finding.severity, finding.gpu_uuid) == (
        "xid-79",
        "fatal",
        node.driver.uuid(4),
    )


def test_an_xid_is_pushed_at_once_although_the_interval_is_long(node: Node) -> None:
    node.start(PITWALL_PUSH_INTERVAL_SECONDS=60, PITWALL_POLL_INTERVAL_SECONDS=5)
    node.ingest.wait(lambda report: report.nvml.answering)
    time.sleep(0.3)  # the GPUs are registered right after the first poll
    raised_at = time.monotonic()
    node.driver.raise_xid(0, 119)
    node.ingest.wait(lambda report: bool(report.xids), timeout=3)
    assert time.monotonic() - raised_at < 1.0


def test_a_log_that_is_rotated_truncated_and_full_of_garbage_is_read_on(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    with node.kernel_log.open("ab") as log:
        log.write(b"\xff\xfe\x00Xid garbage\x80\n" + b"x" * 100_000 + b"\n")
        log.write(b"NVRM: Xid (PCI:0000:10:00): 31, pid=1, na")
    time.sleep(0.4)
    with node.kernel_log.open("ab") as log:
        log.write(b"me=python, MMU Fault\n")
    assert node.ingest.wait(lambda report: bool(report.xids)).xids[0].xid == 31
    os.replace(node.kernel_log, node.directory / "kern.log.1")
    node.write_kernel("NVRM: Xid (PCI:0000:10:00): 43, pid=1, name=python, Ch 00000008")
    codes = lambda report: [event.xid for event in report.xids]  # noqa: E731
    node.ingest.wait(lambda report: 43 in codes(report))
    node.kernel_log.write_bytes(b"")
    time.sleep(0.4)
    node.write_kernel("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 63 LTSSM")
    report = node.ingest.wait(lambda report: 20034 in codes(report))
    assert report.xids[0].kind == "sxid"
    assert report.counters.kernel_lines_unreadable_total >= 1


def test_a_storm_is_one_event_with_its_count(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.write_kernel(
        *("NVRM: Xid (PCI:0000:10:00): 13, pid=7, name=python, Graphics Exception",) * 16
    )
    report = node.ingest.wait(lambda report: any(event.count == 16 for event in report.xids))
    assert len({event.event_id for r in node.ingest.reports for event in r.xids}) == 1
    assert health(report) == "Healthy", "an application's XID says nothing about the GPU"


def test_processes_lead_to_their_pods(node: Node) -> None:
    proc = node.directory / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
    (proc / "4242").mkdir()
    (proc / "4242" / "cgroup").write_text(
        "0::/kubepods.slice/kubepods-pod0a1b2c3d_1111_2222_3333_444455556666.slice/cri-1.scope\n"
    )
    (proc / "4243").mkdir()
    (proc / "4243" / "cgroup").write_text("0::/user.slice\n")
    node.driver.set_gpu(0, pids=(4242, 4243))
    node.start(PITWALL_PROC_ROOT=proc)
    report = node.ingest.wait(lambda report: report.nvml.answering)
    assert report.boot_id == "11111111-2222-3333-4444-555555555555"
    assert report.gpus[0].pod_uids == ("0a1b2c3d-1111-2222-3333-444455556666",)
    assert [process.pod_uid for process in report.gpus[0].processes] == [
        "0a1b2c3d-1111-2222-3333-444455556666",
        None,
    ]
    assert report.gpus[1].pod_uids == ()


def test_metrics_leave_out_what_is_not_known(old_node: Node) -> None:
    old_node.driver.set_gpu(1, error=15)
    old_node.start()
    old_node.ingest.wait(lambda report: report.nvml.answering)
    text = old_node.get("/metrics")
    first, second = old_node.driver.uuid(0), old_node.driver.uuid(2)
    assert f'pitwall_gpu_power_watts{{uuid="{first}"}} 70.0' in text
    assert f'pitwall_gpu_energy_joules_total{{uuid="{second}"}} 1e+06' in text
    assert "temperature_margin" not in text
    assert "pitwall_agent_nvml_answering 1.0" in text
    assert old_node.get("/healthz") == "ok\n"
