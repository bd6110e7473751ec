"""The calls of GPU performance monitoring that the simulated NVML answers."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pynvml

from app.simulator.nvml_gpu import SimulatedGpu

LINK_MEBIBYTES_PER_SECOND = 310_000.0
"""NVLink traffic of a GPU whose training keeps it busy, each way."""

SPINNING_SM_PERCENT = 12.0
"""A collective's kernels hold 16 of an H100's 132 multiprocessors while they wait."""

# What a metric is of a GPU that is `activity` busy (0 to 1) with work, in NVML's units.
METRICS: Mapping[int, Callable[[float], float]] = {
    pynvml.NVML_GPM_METRIC_SM_UTIL: lambda activity: 100 * activity,
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: lambda activity: 38 * activity,
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: lambda activity: 52 * activity,
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: lambda activity: 44 * activity,
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC: lambda activity: (
        LINK_MEBIBYTES_PER_SECOND * activity
    ),
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC: lambda activity: (
        LINK_MEBIBYTES_PER_SECOND * activity
    ),
}


def _measure(metric: Callable[[float], float], number: int, activity: float, spins: bool) -> float:
    if not spins:
        return metric(activity)
    return SPINNING_SM_PERCENT if number == pynvml.NVML_GPM_METRIC_SM_UTIL else 0.0


def gpm_calls(
    find: Callable[[Any], SimulatedGpu], refuse: Callable[[SimulatedGpu], int]
) -> Mapping[str, Callable[..., int]]:
    """Return the functions by their names in the C library; `refuse` is a GPU's own error."""
    numbers = itertools.count(1)
    samples: dict[int, tuple[float, bool]] = {}
    fine = pynvml.NVML_SUCCESS

    def query(handle: Any, answer: Any) -> int:
        answer._obj.isSupportedDevice = 1
        return refuse(find(handle))

    def allocate(sample: Any) -> int:
        ctypes.c_void_p.from_buffer(sample._obj).value = next(numbers)
        return fine

    def take(handle: Any, sample: Any) -> int:
        gpu = find(handle)
        if code := refuse(gpu):
            return code
        said = (gpu.activity_ratio, gpu.power_ratio is not None)
        samples[ctypes.c_void_p.from_buffer(sample).value or 0] = said
        return fine

    def compare(answer: Any) -> int:
        told = answer._obj
        said = samples.get(ctypes.cast(told.sample2, ctypes.c_void_p).value or 0)
        if said is None:
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        for position in range(told.numMetrics):
            metric = told.metrics[position]
            known = METRICS.get(metric.metricId)
            metric.nvmlReturn = fine if known else pynvml.NVML_ERROR_NOT_SUPPORTED
            metric.value = _measure(known, metric.metricId, *said) if known else 0.0
        return fine

    def free(sample: Any) -> int:
        samples.pop(ctypes.c_void_p.from_buffer(sample).value or 0, None)
        return fine

    return {
        "nvmlGpmQueryDeviceSupport": query,
        "nvmlGpmSampleAlloc": allocate,
        "nvmlGpmSampleGet": take,
        "nvmlGpmMetricsGet": compare,
        "nvmlGpmSampleFree": free,
    }
