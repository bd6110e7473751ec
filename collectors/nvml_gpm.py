"""GPU performance monitoring (GPM): how much of a GPU was at work between two polls.

NVML compares two samples, so the last one of each GPU is kept and nothing ever waits for the
second. Under MIG the GPU as a whole has no such samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml

from collectors.nvml_probes import NOT_SUPPORTED, PERCENT, note_error, word_error

MEBIBYTE = 1 << 20
NEEDS_TWO = "needs a second sample"
UNDER_MIG = "not supported under MIG"


def _ratio(value: float) -> float:
    # Sampling may overshoot by a hair; what is far beyond stays, and is dropped as implausible.
    return min(value / PERCENT, 1.0) if value <= PERCENT * 1.01 else value / PERCENT


def _bytes(value: float) -> int:
    return int(value * MEBIBYTE)


METRICS: dict[str, tuple[int, Callable[[float], Any]]] = {
    "sm_activity_ratio": (pynvml.NVML_GPM_METRIC_SM_UTIL, _ratio),
    "sm_occupancy_ratio": (pynvml.NVML_GPM_METRIC_SM_OCCUPANCY, _ratio),
    "tensor_activity_ratio": (pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, _ratio),
    "dram_activity_ratio": (pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, _ratio),
    "nvlink_receive_bytes_per_second": (pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, _bytes),
    "nvlink_transmit_bytes_per_second": (pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, _bytes),
}
"""Percent and MiB a second in NVML, ratios and bytes a second here."""

GPM_FIELDS = tuple(METRICS)


@dataclass
class GpmSamples:
    """A GPU's two sample buffers; `filled` says that `last` holds one. `refusal` is why none
    will ever come."""

    last: Any = None
    spare: Any = None
    filled: bool = False
    refusal: str | None = field(default=None)


class GpmReader:
    """Reads all GPUs of a process one after the other; owns the structure that NVML fills."""

    def __init__(self) -> None:
        self._answer: Any = None

    def read(
        self,
        handle: Any,
        samples: GpmSamples,
        values: dict[str, Any],
        missing: dict[str, str],
        *,
        mig_mode: bool | None,
    ) -> None:
        """Fill `values` with what happened since the last call for this GPU.

        Raises GpuUnreachableError when the GPU is lost or wants a reset.
        """
        if mig_mode:
            samples.filled = False
            missing.update(dict.fromkeys(GPM_FIELDS, UNDER_MIG))
            return
        if samples.refusal is not None:
            missing.update(dict.fromkeys(GPM_FIELDS, samples.refusal))
            return
        try:
            if samples.last is None:
                self._begin(handle, samples)
                if samples.refusal is not None:
                    missing.update(dict.fromkeys(GPM_FIELDS, samples.refusal))
                    return
            pynvml.nvmlGpmSampleGet(handle, samples.spare)
            samples.last, samples.spare = samples.spare, samples.last
            if not samples.filled:
                samples.filled = True
                missing.update(dict.fromkeys(GPM_FIELDS, NEEDS_TWO))
                return
            self._compare(samples, values, missing)
        except pynvml.NVMLError as error:
            samples.filled = False
            note_error(error.value, GPM_FIELDS, missing)

    def _begin(self, handle: Any, samples: GpmSamples) -> None:
        try:
            supported = pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound) as error:
            samples.refusal = word_error(error.value)
            return
        if not supported:
            samples.refusal = NOT_SUPPORTED
            return
        samples.spare = pynvml.nvmlGpmSampleAlloc()
        samples.last = pynvml.nvmlGpmSampleAlloc()

    def _compare(
        self, samples: GpmSamples, values: dict[str, Any], missing: dict[str, str]
    ) -> None:
        answer = self._answer
        if answer is None:
            # 19 kB, of which NVML fills a few entries: made once.
            answer = self._answer = pynvml.c_nvmlGpmMetricsGet_t()
            answer.version = pynvml.NVML_GPM_METRICS_GET_VERSION
            answer.numMetrics = len(METRICS)
            for position, (number, _) in enumerate(METRICS.values()):
                answer.metrics[position].metricId = number
        # The older of the two is in the buffer that the next sample will be written to.
        answer.sample1, answer.sample2 = samples.spare, samples.last
        pynvml.nvmlGpmMetricsGet(answer)
        for position, (name, (_, convert)) in enumerate(METRICS.items()):
            metric = answer.metrics[position]
            if metric.nvmlReturn != pynvml.NVML_SUCCESS:
                note_error(metric.nvmlReturn, (name,), missing)
            elif not math.isfinite(metric.value):
                missing[name] = "not a number"
            else:
                values[name] = convert(metric.value)
