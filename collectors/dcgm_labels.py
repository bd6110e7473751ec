"""What the labels of dcgm-exporter's series say: which host, which GPU, which pod holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.pci import normalise_pci
from collectors.readings import PodReference

Labels = Mapping[str, str]


def find_host(labels: Labels) -> str | None:
    """Return the node of a series, in lower case as nodes are named: its label Hostname, or hostname
    in newer exporters."""
    host = labels.get("Hostname") or labels.get("hostname")
    return host.lower() if host else None


def find_owner(labels: Labels) -> PodReference | None:
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


def find_owner_uid(labels: Labels) -> str | None:
    """Return the UID of the pod that holds the GPU, where the exporter tells it."""
    return labels.get("exported_pod_uid") or labels.get("pod_uid") or None


def find_driver(labels: Labels) -> str | None:
    """Return the driver's version, where the exporter tells it."""
    return labels.get("DCGM_FI_DRIVER_VERSION") or None


def read_identity(labels: Labels) -> dict[str, Any]:
    """Return the fields of a reading that name the GPU; those that no label tells are left out."""
    identity: dict[str, Any] = {"uuid": labels["UUID"]}
    if labels.get("gpu", "").isdecimal():
        identity["index"] = int(labels["gpu"])
    pci = normalise_pci(labels["pci_bus_id"]) if labels.get("pci_bus_id") else None
    if pci is not None:
        identity["pci_bus_id"] = pci
    if labels.get("modelName"):
        identity["name"] = labels["modelName"]
    device = labels.get("device", "").removeprefix("nvidia")
    if device.isdecimal():
        identity["minor_number"] = int(device)
    return identity
