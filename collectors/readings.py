"""What one poll of one GPU says: a frozen record in base units.

A field is None when its value is not known; `missing` then says why ("not supported",
"not scraped", "GPU is lost", ...). Nothing is ever 0 because it could not be read. When the
whole GPU could not be read, `missing` holds the one key "*".
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

MAX_COUNT = 2**63 - 1
"""Largest counter taken, so that each fits a signed 64-bit column."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Small = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Indices, states and widths: a plain 32-bit column holds them."""

Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Celsius = Annotated[float, msgspec.Meta(ge=-273.15, le=1000.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e18)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Sentence = Annotated[str, msgspec.Meta(max_length=2048)]
Uuid = Annotated[str, msgspec.Meta(min_length=1, max_length=96)]

GPU_IS_LOST = 15
"""NVML_ERROR_GPU_IS_LOST: the GPU fell off the bus or is otherwise inaccessible (nvml.h)."""

RESET_REQUIRED = 16
"""NVML_ERROR_RESET_REQUIRED: the GPU works again only after a reset (nvml.h)."""


class GpuProcess(msgspec.Struct, frozen=True, omit_defaults=True):
    """A process with a compute context on a GPU; `pod_uid` is None outside any pod."""

    pid: Count
    memory_bytes: Count | None = None
    pod_uid: Text | None = None


class PodReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pod that the kubelet gave a GPU to (the PodResources API knows no UIDs)."""

    namespace: Text
    name: Text
    container: Text = ""


class MigDevice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance of a GPU that is cut by MIG. The key is `uuid`."""

    uuid: Uuid
    gpu_instance_id: Small | None = None
    compute_instance_id: Small | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None


class PortReading(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One port of a network adapter. The key is `device` and `port`.

    `link_layer` is "InfiniBand" or "Ethernet", `state` a word such as "ACTIVE" or "DOWN".
    `link_downed_total` is a counter of 8 bits that stops at 255.
    """

    device: Text
    port: Small
    link_layer: Text | None = None
    state: Text | None = None
    physical_state: Text | None = None
    rate_bits_per_second: Count | None = None
    link_downed_total: Count | None = None
    symbol_errors_total: Count | None = None
    link_recoveries_total: Count | None = None
    missing: dict[Text, Text] = {}


class GpuReading(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One GPU at one moment. The key is `uuid`; `index` and `pci_bus_id` are attributes.

    `error_code` is the nvmlReturn of the GPU as a whole when it answers nothing else
    (15 lost, 16 reset required); identity then comes from what was known before.
    `clocks_event_reasons` are NVML's bits. `*_total` fields are counters that restart at a
    driver reload or GPU reset. Activities and NVLink rates are means since the poll before (GPM).
    `mig_devices` is empty on a GPU that is whole. `recovery_action` is NVML's field 230 (0 none, 1 GPU reset,
    2 reboot, 3 drain P2P, 4 drain and reset, 5 IMEX, 6 bus reset, 7 system reboot).
    """

    uuid: Uuid
    index: Small | None = None
    pci_bus_id: Text | None = None
    serial: Text | None = None
    name: Text | None = None
    module_id: Small | None = None
    minor_number: Small | None = None
    vbios_version: Text | None = None
    persistence_mode: bool | None = None
    mig_mode: bool | None = None
    error_code: Small | None = None

    temperature_celsius: Celsius | None = None
    memory_temperature_celsius: Celsius | None = None
    temperature_margin_celsius: Celsius | None = None
    power_watts: Amount | None = None
    power_limit_watts: Amount | None = None
    energy_joules_total: Amount | None = None
    sm_clock_hertz: Count | None = None
    memory_clock_hertz: Count | None = None
    sm_clock_max_hertz: Count | None = None
    clocks_event_reasons: Count | None = None
    gpu_utilization_ratio: Ratio | None = None
    memory_utilization_ratio: Ratio | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None

    sm_activity_ratio: Ratio | None = None
    sm_occupancy_ratio: Ratio | None = None
    tensor_activity_ratio: Ratio | None = None
    dram_activity_ratio: Ratio | None = None
    nvlink_receive_bytes_per_second: Count | None = None
    nvlink_transmit_bytes_per_second: Count | None = None

    ecc_mode: bool | None = None
    ecc_corrected_total: Count | None = None
    ecc_uncorrected_total: Count | None = None
    sram_uncorrected_total: Count | None = None
    remapped_correctable: Small | None = None
    remapped_uncorrectable: Small | None = None
    remap_pending: bool | None = None
    remap_failure: bool | None = None
    remap_banks_low: Small | None = None
    remap_banks_none: Small | None = None

    pcie_generation: Small | None = None
    pcie_generation_max: Small | None = None
    pcie_width: Small | None = None
    pcie_width_max: Small | None = None
    pcie_replay_total: Count | None = None
    nvlink_active_links: Small | None = None
    nvlink_crc_errors_total: Count | None = None
    nvlink_replay_errors_total: Count | None = None
    nvlink_recovery_errors_total: Count | None = None
    fabric_state: Small | None = None
    fabric_status: Small | None = None
    recovery_action: Small | None = None

    mig_devices: Annotated[tuple[MigDevice, ...], msgspec.Meta(max_length=16)] = ()
    processes: Annotated[tuple[GpuProcess, ...], msgspec.Meta(max_length=1024)] = ()
    pod_uids: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()
    allocated_to: Annotated[tuple[PodReference, ...], msgspec.Meta(max_length=256)] = ()
    missing: dict[Text, Text] = {}


class Poll(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All GPUs of the node at `at`. `gpu_count` is NVML's own count, which includes GPUs that
    cannot be opened; processes carry no pod yet."""

    at: datetime
    driver_version: str | None
    gpu_count: int
    gpus: tuple[GpuReading, ...]


MEASURED_FIELDS: tuple[str, ...] = tuple(
    name
    for name in GpuReading.__struct_fields__
    if name
    not in (
        *("uuid", "error_code", "processes", "pod_uids", "allocated_to", "missing"),
        "mig_devices",
    )
)
"""Fields that hold a value or None with a reason in `missing`."""


def assemble_reading(
    values: dict[str, Any],
    missing: dict[str, str],
    processes: tuple[GpuProcess, ...] = (),
    mig_devices: tuple[MigDevice, ...] = (),
) -> GpuReading:
    """Return the reading of these values; one that its field cannot hold is dropped, with the
    reason in `missing`. Raises msgspec.ValidationError when the uuid itself is not one."""
    while True:
        try:
            reading = msgspec.convert(values, GpuReading)
        except msgspec.ValidationError as error:
            name = str(error).rpartition("`$.")[2].rstrip("`").partition("[")[0]
            if name not in values or name == "uuid":
                raise
            missing[name] = f"implausible: {values.pop(name)!r:.80}"
            continue
        return msgspec.structs.replace(
            reading, processes=processes, mig_devices=mig_devices, missing=missing
        )
