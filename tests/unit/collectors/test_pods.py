"""From processes and from the kubelet's word to pods."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from collectors.errors import SourceError
from collectors.pod_resources import list_allocations, message_classes
from collectors.pods import CgroupPodFinder, assign_pods, read_pod_uid
from collectors.readings import GpuProcess, GpuReading, PodReference

UID = "0a1b2c3d-1111-2222-3333-444455556666"


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}"
            ".slice/cri-containerd-abc.scope",
            UID,
        ),
        (f"12:devices:/kubepods/besteffort/pod{UID}/0123abcd\n11:cpu:/", UID),
        ("0::/kubepods/pod4f1b0e5d6c7a8b9c0d1e2f3a4b5c6d7e/x", "4f1b0e5d6c7a8b9c0d1e2f3a4b5c6d7e"),
        ("0::/user.slice/user-1000.slice/podman", None),
        ("0::/system.slice/containerd.service", None),
        ("", None),
    ],
)
def test_a_pods_uid_is_in_its_processes_cgroup(cgroup: str, uid: str | None) -> None:
    assert read_pod_uid(cgroup.encode()) == uid


def test_a_process_number_that_is_used_anew_is_looked_up_anew(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    cgroup = tmp_path / "7" / "cgroup"
    find = CgroupPodFinder(tmp_path)
    assert find(7) is None
    cgroup.write_text(f"0::/kubepods/pod{UID}/x")
    assert find(7) == UID, "a process that could not be read is tried again"
    other = UID.replace("0a1b", "ffff")
    cgroup.write_text(f"0::/kubepods/pod{other}/x")
    assert find(7) == UID
    find.keep([8])
    assert find(7) == other


def test_a_gpu_has_the_pods_of_its_processes_each_once() -> None:
    reading = GpuReading(uuid="GPU-1", processes=tuple(GpuProcess(pid=pid) for pid in (3, 1, 2)))
    pods = {1: "pod-b", 2: "pod-a", 3: "pod-b"}
    placed = assign_pods(reading, lambda pid: pods.get(pid))
    assert placed.pod_uids == ("pod-a", "pod-b")
    assert [process.pod_uid for process in placed.processes] == ["pod-b", "pod-b", "pod-a"]
    assert assign_pods(reading, lambda pid: None).pod_uids == ()


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[tuple[Path, list[Any]]]:
    """A real gRPC server on a unix socket that lists what the test puts in."""
    classes = message_classes()
    pods: list[Any] = []

    def answer(request: Any, context: Any) -> Any:
        return classes["ListPodResourcesResponse"](pod_resources=pods)

    handler = grpc.method_handlers_generic_handler(
        "v1.PodResourcesLister",
        {
            "List": grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=classes["ListPodResourcesRequest"].FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    socket = tmp_path / "kubelet.sock"
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    yield socket, pods
    server.stop(0).wait()


def test_the_kubelet_names_the_pod_of_each_gpu(kubelet: tuple[Path, list[Any]]) -> None:
    socket, pods = kubelet
    classes = message_classes()

    def make(name: str, resource: str, *devices: str) -> Any:
        return classes["PodResources"](
            name=name,
            namespace="training",
            containers=[
                classes["ContainerResources"](
                    name="main",
                    devices=[
                        classes["ContainerDevices"](resource_name=resource, device_ids=devices)
                    ],
                )
            ],
        )

    pods += [
        make("rank-0", "nvidia.com/gpu", "GPU-1", "GPU-2"),
        make("shared-a", "nvidia.com/gpu", "GPU-3::0"),
        make("shared-b", "nvidia.com/gpu.shared", "GPU-3::1"),
        make("network", "rdma/hca", "mlx5_0"),
    ]
    assert list_allocations(socket) == {
        "GPU-1": (PodReference("training", "rank-0", "main"),),
        "GPU-2": (PodReference("training", "rank-0", "main"),),
        "GPU-3": (
            PodReference("training", "shared-a", "main"),
            PodReference("training", "shared-b", "main"),
        ),
    }


def test_a_kubelet_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=str(tmp_path)):
        list_allocations(tmp_path / "kubelet.sock", timeout_seconds=0.5)
