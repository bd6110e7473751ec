"""The MIG devices of a GPU that is cut into instances."""

from __future__ import annotations

from typing import Any

import pynvml

from collectors.nvml_probes import note_error
from collectors.readings import MigDevice


def read_mig_devices(handle: Any, missing: dict[str, str]) -> tuple[MigDevice, ...]:
    """Return the GPU's MIG devices, none while it is whole or cannot say.

    Raises GpuUnreachableError when the GPU is lost or wants a reset.
    """
    try:
        places = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError as error:
        note_error(error.value, ("mig_devices",), missing)
        return ()
    devices = []
    for place in range(min(places, 16)):
        try:
            device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device, pynvml.nvmlMemory_v2)
            devices.append(
                MigDevice(
                    uuid=pynvml.nvmlDeviceGetUUID(device),
                    gpu_instance_id=pynvml.nvmlDeviceGetGpuInstanceId(device),
                    compute_instance_id=pynvml.nvmlDeviceGetComputeInstanceId(device),
                    memory_used_bytes=memory.used,
                    memory_total_bytes=memory.total,
                )
            )
        except pynvml.NVMLError_NotFound:
            continue  # a place without an instance
        except pynvml.NVMLError as error:
            note_error(error.value, ("mig_devices",), missing)
    return tuple(devices)
