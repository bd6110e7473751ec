"""dcgm-exporter's series, read from Prometheus, as partial readings of GPUs.

For clusters (or nodes) without the agent. What is not scraped is unknown and says so; nothing
is taken to be 0. Traps that are handled here: both spellings of the host's label, labels
prefixed exported_ where the scrape does not honour labels, an idle GPU that carries the
exporter's own pod, the XID gauge that keeps its last value, and DCGM's blank values.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException

from collectors.errors import SourceError
from collectors.pci import normalise_pci
from collectors.readings import MEASURED_FIELDS, GpuReading, PodReference, assemble_reading
from collectors.report import XidEvent

TIMEOUT_SECONDS = 10
MEBIBYTE = 1 << 20
MEGAHERTZ = 1_000_000
BLANK_FROM = 2_147_483_632
"""DCGM_INT32_BLANK (dcgm_structs.h): it and the values above it mean "no value"."""

BLANK_WIDE_FROM = 9_223_372_036_854_775_792
"""DCGM_INT64_BLANK, for counters that pass 32 bits. A float holds it to 1024."""

NOT_SCRAPED = "not scraped"
NO_SERIES = "no series for this GPU"
XID_METRIC = "DCGM_FI_DEV_XID_ERRORS"
MEMORY_METRICS = ("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_RESERVED")


@dataclass(frozen=True)
class Series:
    """One metric of dcgm-exporter: the field it fills and how its unit is converted."""

    metric: str
    field: str
    convert: Callable[[float], Any] = float
    wide: bool = False


SERIES: tuple[Series, ...] = (
    Series("DCGM_FI_DEV_GPU_TEMP", "temperature_celsius"),
    Series("DCGM_FI_DEV_MEMORY_TEMP", "memory_temperature_celsius"),
    Series("DCGM_FI_DEV_POWER_USAGE", "power_watts"),
    Series(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "energy_joules_total",
        lambda millijoules: millijoules / 1000,
        wide=True,
    ),
    Series("DCGM_FI_DEV_SM_CLOCK", "sm_clock_hertz", lambda mhz: int(mhz * MEGAHERTZ)),
    Series("DCGM_FI_DEV_MEM_CLOCK", "memory_clock_hertz", lambda mhz: int(mhz * MEGAHERTZ)),
    Series("DCGM_FI_DEV_GPU_UTIL", "gpu_utilization_ratio", lambda percent: percent / 100),
    Series("DCGM_FI_DEV_MEM_COPY_UTIL", "memory_utilization_ratio", lambda percent: percent / 100),
    Series("DCGM_FI_DEV_FB_USED", "memory_used_bytes", lambda mib: int(mib) * MEBIBYTE),
    Series("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "pcie_replay_total", int, wide=True),
    Series("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "remapped_correctable", int),
    Series("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "remapped_uncorrectable", int),
    Series("DCGM_FI_DEV_ROW_REMAP_FAILURE", "remap_failure", lambda value: value != 0),
    Series("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "tensor_activity_ratio"),
    Series("DCGM_FI_PROF_DRAM_ACTIVE", "dram_activity_ratio"),
    # Not in dcgm-exporter's default list, but asked for by many sites.
    Series("DCGM_FI_DEV_ROW_REMAP_PENDING", "remap_pending", lambda value: value != 0),
    Series("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "ecc_corrected_total", int, wide=True),
    Series("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "ecc_uncorrected_total", int, wide=True),
)

Vector = Iterable[Mapping[str, Any]]
"""An instant vector as Prometheus answers it: [{"metric": labels, "value": [time, text]}]."""


@dataclass(frozen=True)
class DcgmNode:
    """The GPUs of one host as dcgm-exporter tells them, and the last XID of each by UUID."""

    name: str
    observed_at: datetime
    driver_version: str | None
    gpus: tuple[GpuReading, ...]
    last_xids: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Row:
    labels: Mapping[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    owners: set[PodReference] = field(default_factory=set)
    pod_uids: set[str] = field(default_factory=set)
    xid: int | None = None
    at: float = 0.0


def read_nodes(vectors: Mapping[str, Vector]) -> dict[str, DcgmNode]:
    """Return the nodes by name from instant vectors by metric.

    A field whose metric has no vector, or an empty one, is missing as "not scraped"; one whose
    metric lacks this GPU as "no series for this GPU".
    """
    rows: dict[tuple[str, str], _Row] = {}
    scraped: set[str] = set()
    for metric, vector in vectors.items():
        for sample in vector:
            row = _find_row(rows, sample)
            if row is not None:
                scraped.add(metric)
                _take(row, metric, sample)
    nodes: dict[str, list[_Row]] = defaultdict(list)
    for (node, _), row in rows.items():
        nodes[node].append(row)
    return {node: _make_node(node, found, scraped) for node, found in nodes.items()}


def find_host(labels: Mapping[str, str]) -> str | None:
    """Return the node of a series: Hostname, or hostname in newer exporters."""
    return labels.get("Hostname") or labels.get("hostname")


def find_owner(labels: Mapping[str, str]) -> PodReference | None:
    """Return the pod that holds the GPU, None when it is idle or nothing says so.

    Where the scrape does not honour labels, the workload's are prefixed exported_ and the
    plain ones are the exporter's own. Where it does, an idle GPU has no workload labels and
    Prometheus fills in those of the target: again the exporter's own pod.
    """
    if labels.get("exported_pod"):
        return PodReference(
            labels.get("exported_namespace", ""),
            labels["exported_pod"],
            labels.get("exported_container", ""),
        )
    pod, container = labels.get("pod", ""), labels.get("container", "")
    if not pod or "dcgm-exporter" in pod or "dcgm-exporter" in container:
        return None
    if container and container == labels.get("job"):
        return None
    return PodReference(labels.get("namespace", ""), pod, container)


def find_new_xids(
    before: Mapping[str, int], after: DcgmNode, *, new_id: Callable[[], str]
) -> list[XidEvent]:
    """Return an event for each GPU whose XID gauge has changed to another code.

    The gauge keeps its last value until the exporter restarts, so the level says nothing: a
    GPU not in `before` raises nothing either, and the same code twice cannot be seen.
    """
    by_uuid = {gpu.uuid: gpu for gpu in after.gpus}
    return [
        XidEvent(
            event_id=new_id(),
            at=after.observed_at,
            last_at=after.observed_at,
            xid=code,
            gpu_uuid=uuid,
            pci_bus_id=by_uuid[uuid].pci_bus_id if uuid in by_uuid else None,
            source="dcgm",
        )
        for uuid, code in after.last_xids.items()
        if code and uuid in before and before[uuid] != code
    ]


class DcgmSource:
    """Asks one Prometheus (or what speaks its API) for dcgm-exporter's series.

    Raises SourceError naming the address when it does not answer within the time-out.
    """

    def __init__(self, url: str, *, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/")
        # The caller polls again soon enough: no retries that would hide how late an answer is.
        self._client = PrometheusConnect(
            url=self._url, timeout=timeout_seconds, retry=requests.adapters.Retry(total=0)
        )

    def read(self) -> dict[str, DcgmNode]:
        """Return every node that dcgm-exporter is scraped on, by name."""
        metrics = [*(series.metric for series in SERIES), *MEMORY_METRICS[1:], XID_METRIC]
        return read_nodes({metric: self.query(metric) for metric in metrics})

    def is_answering(self) -> bool:
        """Whether a query is answered at all, whatever it finds."""
        try:
            self.query("up")
        except SourceError:
            return False
        return True

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the instant vector of a query."""
        try:
            answer = self._client.custom_query(text)
        except (
            requests.RequestException,
            PrometheusApiClientException,
            ValueError,
            KeyError,
            TypeError,
        ) as error:
            raise SourceError(
                f"Prometheus at {self._url} does not answer the query {text}: {error}; "
                "check PITWALL_PROMETHEUS_URL and that it is up"
            ) from error
        if not isinstance(answer, list):
            raise SourceError(f"Prometheus at {self._url} answers {text} with no vector")
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


_BY_METRIC = {series.metric: series for series in SERIES}
_IDENTITY = ("index", "pci_bus_id", "name", "minor_number")


def _find_row(rows: dict[tuple[str, str], _Row], sample: Mapping[str, Any]) -> _Row | None:
    labels = sample.get("metric")
    if not isinstance(labels, Mapping):
        return None
    host, uuid = find_host(labels), labels.get("UUID")
    # A MIG instance has the UUID of its GPU: its values are a part's, not the GPU's.
    if not host or not uuid or labels.get("GPU_I_ID"):
        return None
    return rows.setdefault((host, uuid), _Row(labels))


def _take(row: _Row, metric: str, sample: Mapping[str, Any]) -> None:
    labels = sample["metric"]
    owner = find_owner(labels)
    if owner is not None:
        row.owners.add(owner)
        uid = labels.get("exported_pod_uid") or labels.get("pod_uid")
        if uid:
            row.pod_uids.add(uid)
    series = _BY_METRIC.get(metric)
    try:
        at, value = float(sample["value"][0]), float(sample["value"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        if series is not None:
            row.missing[series.field] = "not a number"
        return
    row.at = max(row.at, at)
    blank = BLANK_WIDE_FROM if series is not None and series.wide else BLANK_FROM
    if not math.isfinite(value) or value >= blank:
        if series is not None:
            row.missing[series.field] = "DCGM has no value"
        return
    if metric in MEMORY_METRICS:
        row.memory[metric] = value
    if metric == XID_METRIC:
        row.xid = int(value)
    elif series is not None:
        row.values[series.field] = series.convert(value)


def _make_node(node: str, rows: list[_Row], scraped: set[str]) -> DcgmNode:
    gpus = []
    for row in rows:
        values = {**_read_identity(row.labels), **row.values}
        if set(MEMORY_METRICS[:2]) <= set(row.memory):
            values["memory_total_bytes"] = int(sum(row.memory.values())) * MEBIBYTE
        missing = {
            name: NOT_SCRAPED
            for name in MEASURED_FIELDS
            if values.get(name) is None and name not in _IDENTITY
        }
        for series in SERIES:
            if series.metric in scraped and series.field in missing:
                missing[series.field] = NO_SERIES
        missing.update(row.missing)
        reading = assemble_reading(
            {
                **values,
                "allocated_to": [
                    {"namespace": owner.namespace, "name": owner.name, "container": owner.container}
                    for owner in sorted(row.owners, key=lambda pod: (pod.namespace, pod.name))
                ],
                "pod_uids": sorted(row.pod_uids),
            },
            missing,
        )
        gpus.append(reading)
    gpus.sort(key=lambda gpu: (gpu.index is None, gpu.index, gpu.uuid))
    return DcgmNode(
        name=node,
        observed_at=datetime.fromtimestamp(max(row.at for row in rows), UTC),
        driver_version=next(
            (
                row.labels["DCGM_FI_DRIVER_VERSION"]
                for row in rows
                if row.labels.get("DCGM_FI_DRIVER_VERSION")
            ),
            None,
        ),
        gpus=tuple(gpus),
        last_xids={row.labels["UUID"]: row.xid for row in rows if row.xid is not None},
    )


def _read_identity(labels: Mapping[str, str]) -> dict[str, Any]:
    identity: dict[str, Any] = {"uuid": labels["UUID"]}
    if labels.get("gpu", "").isdecimal():
        identity["index"] = int(labels["gpu"])
    if labels.get("pci_bus_id"):
        identity["pci_bus_id"] = normalise_pci(labels["pci_bus_id"])
    if labels.get("modelName"):
        identity["name"] = labels["modelName"]
    device = labels.get("device", "").removeprefix("nvidia")
    if device.isdecimal():
        identity["minor_number"] = int(device)
    return identity
