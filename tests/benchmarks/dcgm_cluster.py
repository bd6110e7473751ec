"""Instant vectors of a cluster of any size, as Prometheus gives them for dcgm-exporter's default metrics."""

import json
from typing import Any

from collectors.dcgm_columns import TableBuilder
from collectors.dcgm_series import DEFAULT_SERIES, FB_FREE, FB_RESERVED, XID_METRIC
from collectors.dcgm_words import NodeWord

GPUS_PER_NODE = 8
METRICS = (*(series.metric for series in DEFAULT_SERIES), FB_FREE, FB_RESERVED, XID_METRIC)
ADDED = ("DCGM_FI_DEV_ROW_REMAP_PENDING", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL")

_USUAL = {
    "DCGM_FI_DEV_GPU_TEMP": 61,
    "DCGM_FI_DEV_MEMORY_TEMP": 70,
    "DCGM_FI_DEV_POWER_USAGE": 612.5,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 8_123_456_789_012,
    "DCGM_FI_DEV_SM_CLOCK": 1980,
    "DCGM_FI_DEV_MEM_CLOCK": 2619,
    "DCGM_FI_DEV_GPU_UTIL": 98,
    "DCGM_FI_DEV_MEM_COPY_UTIL": 44,
    "DCGM_FI_DEV_FB_USED": 73_000,
    "DCGM_FI_DEV_FB_FREE": 8000,
    "DCGM_FI_DEV_FB_RESERVED": 559,
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 106,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.52,
    "DCGM_FI_PROF_DRAM_ACTIVE": 0.44,
}


def labels_of(number: int) -> dict[str, str]:
    """The labels of a GPU, as many and as long as those of a real one under the operator."""
    node, index = divmod(number, GPUS_PER_NODE)
    return {
        "DCGM_FI_DRIVER_VERSION": "580.105.08",
        "Hostname": f"h100-{node:05d}",
        "UUID": f"GPU-{number:08x}-79c8-fedd-8899-07539c7f868a",
        "container": "nvidia-dcgm-exporter",
        "device": f"nvidia{index}",
        "endpoint": "gpu-metrics",
        "exported_container": "worker",
        "exported_namespace": "training",
        "exported_pod": f"pretrain-{node:05d}-x7k2p",
        "gpu": str(index),
        "instance": f"10.{node // 65536}.{node // 256 % 256}.{node % 256}:9400",
        "job": "nvidia-dcgm-exporter",
        "modelName": "NVIDIA H100 80GB HBM3",
        "namespace": "gpu-operator",
        "pci_bus_id": f"00000000:{index * 16 + 11:02X}:00.0",
        "pod": "nvidia-dcgm-exporter-wqqqn",
        "service": "nvidia-dcgm-exporter",
    }


def value_of(metric: str, number: int, poll: int) -> float:
    """What a GPU says: every 700th waits for a remap, every 500th replays, some XIDs with each poll."""
    if metric == "DCGM_FI_DEV_ROW_REMAP_PENDING":
        return float(number % 700 == 3)
    if metric == "DCGM_FI_DEV_PCIE_REPLAY_COUNTER" and number % 500 == 7:
        return 106.0 + 20 * poll
    if metric == XID_METRIC:
        return 31.0 if number % 20_000 == poll else 0.0
    return float(_USUAL.get(metric, 0))


def vector_text(metric: str, gpus: int, *, names: list[str] | None = None) -> str:
    """The body of Prometheus' answer for one metric, with all labels or those in `names`."""
    result = []
    for number in range(gpus):
        labels = {"__name__": metric, **labels_of(number)}
        if names is not None:
            labels = {name: labels[name] for name in names if name in labels}
        result.append(
            {
                "metric": labels,
                "value": [1_773_114_089.184, f"{value_of(metric, number, 0):g}"],
            }
        )
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def vector(metric: str, gpus: int, labels: list[dict[str, str]], poll: int) -> list[dict[str, Any]]:
    """One metric's vector with labels that are made once, so that a large cluster fits into memory."""
    return [
        {
            "metric": labels[number],
            "value": [1_773_114_089.184 + 15 * poll, str(value_of(metric, number, poll))],
        }
        for number in range(gpus)
    ]


def build(gpus: int, labels: list[dict[str, str]], poll: int) -> TableBuilder:
    """A builder that has taken all metrics and the times of the samples."""
    builder = TableBuilder()
    for metric in (*METRICS, *ADDED):
        builder.add(metric, vector(metric, gpus, labels, poll))
    scraped_at = str(1_773_114_089.184 + 15 * poll - 5)
    builder.add_times(
        [
            {"metric": one, "value": [1_773_114_089.184 + 15 * poll, scraped_at]}
            for one in labels[:gpus]
        ]
    )
    return builder


def words_of(gpus: int) -> dict[str, NodeWord]:
    """The nodes without an agent: all of them."""
    hosts = [f"h100-{node:05d}" for node in range(gpus // GPUS_PER_NODE)]
    return {host: NodeWord(host, f"boot-{host}", GPUS_PER_NODE) for host in hosts}
