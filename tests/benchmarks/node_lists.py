"""A server of node lists in the shape a GPU cluster has them, about 19 kB a node; run as a process of its own."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

IMAGES = 50  # as many as a kubelet reports (--node-status-max-images)
DIGEST = "sha256:" + "0123456789abcdef" * 4


def make_node(index: int) -> dict[str, Any]:
    """A node as an API server sends it, managed fields and images included."""
    name = f"h100-{index // 64:03d}-{index % 64:02d}"
    labels = {f"nvidia.com/gpu.feature-{i:02d}": "NVIDIA-H100-80GB-HBM3" for i in range(40)}
    labels |= {
        "kubernetes.io/hostname": name,
        "network.topology.nvidia.com/leaf": f"leaf-{index // 16}",
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    }
    amounts = {
        "cpu": "192",
        "ephemeral-storage": "28120Gi",
        "hugepages-1Gi": "0",
        "memory": "2113400Mi",
        "nvidia.com/gpu": "8",
        "pods": "110",
    }
    conditions = [
        {
            "type": kind,
            "status": "True" if kind == "Ready" else "False",
            "reason": f"Kubelet{kind}",
            "message": f"kubelet says {kind}",
            "lastHeartbeatTime": "2026-03-01T12:00:00Z",
            "lastTransitionTime": "2026-02-01T12:00:00Z",
        }
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready")
    ]
    images = [
        {
            "names": [
                f"registry.example.com/training/image-{i:02d}@{DIGEST}",
                f"registry.example.com/training/image-{i:02d}:2026.03.{i:02d}",
            ],
            "sizeBytes": 10_000_000 + i,
        }
        for i in range(IMAGES)
    ]
    fields = [
        {
            "manager": manager,
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-03-01T12:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {f"f:{key}": {} for key in labels}}},
        }
        for manager in ("nfd-master", "kubelet")
    ]
    return {
        "metadata": {
            "name": name,
            "uid": f"00000000-0000-4000-8000-{index:012d}",
            "resourceVersion": str(1000 + index),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
            "annotations": {
                "nfd.node.kubernetes.io/feature-labels": ",".join(labels),
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
            "managedFields": fields,
        },
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": f"example://{name}"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": images,
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "00000000-0000-4000-8000-000000000001",
                "containerRuntimeVersion": "containerd://2.1.0",
                "kernelVersion": "6.8.0",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.1",
                "machineID": "00000000000000000000000000000001",
                "operatingSystem": "linux",
                "osImage": "Ubuntu 24.04",
                "systemUUID": "00000000-0000-4000-8000-000000000002",
            },
        },
    }


def serve(count: int, page: int) -> None:
    """Serves `count` nodes in pages of `page` on a free port, whose number is the first line printed."""
    encoded = [json.dumps(make_node(i), separators=(",", ":")).encode() for i in range(count)]
    bodies: dict[str, bytes] = {}
    for start in range(0, count, page):
        more = str(start + page) if start + page < count else ""
        metadata = json.dumps({"resourceVersion": "9999", **({"continue": more} if more else {})})
        items = b",".join(encoded[start : start + page])
        bodies[str(start) if start else ""] = (
            b'{"kind":"NodeList","apiVersion":"v1","metadata":%s,"items":[%s]}'
            % (metadata.encode(), items)
        )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            body = bodies[asked.get("continue", [""])[0]]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    size = sum(map(len, encoded)) // count
    print(json.dumps({"port": server.server_address[1], "bytes_a_node": size}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
