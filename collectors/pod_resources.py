"""Which pod the kubelet gave each GPU to: its PodResources API over a unix socket.

The few messages that are needed are declared here through protobuf descriptors (package
v1, k8s.io/kubelet/pkg/apis/podresources/v1); fields that are not declared are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from collectors.errors import SourceError
from collectors.readings import PodReference

LIST_METHOD = "/v1.PodResourcesLister/List"
GPU_RESOURCE_PREFIX = "nvidia.com/"
_REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE

# message: (field, number, label, type of a submessage or None for a string)
_MESSAGES: dict[str, tuple[tuple[str, int, Any, str | None], ...]] = {
    "ListPodResourcesRequest": (),
    "ContainerDevices": (
        ("resource_name", 1, _OPTIONAL, None),
        ("device_ids", 2, _REPEATED, None),
    ),
    "ContainerResources": (
        ("name", 1, _OPTIONAL, None),
        ("devices", 2, _REPEATED, "ContainerDevices"),
    ),
    "PodResources": (
        ("name", 1, _OPTIONAL, None),
        ("namespace", 2, _OPTIONAL, None),
        ("containers", 3, _REPEATED, "ContainerResources"),
    ),
    "ListPodResourcesResponse": (("pod_resources", 1, _REPEATED, "PodResources"),),
}


@lru_cache(maxsize=1)
def message_classes() -> dict[str, Any]:
    """Return the message classes by name, built once."""
    file = descriptor_pb2.FileDescriptorProto(
        name="pitwall/podresources.proto", package="v1", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            message.field.add(
                name=field,
                number=number,
                label=label,
                type=_MESSAGE if kind else _STRING,
                type_name=f".v1.{kind}" if kind else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}"))
        for name in _MESSAGES
    }


def list_allocations(
    socket: Path, *, timeout_seconds: float = 5.0
) -> dict[str, tuple[PodReference, ...]]:
    """Return the pods by GPU UUID as the kubelet has given them out.

    Raises SourceError when the kubelet does not answer within `timeout_seconds`.
    """
    classes = message_classes()
    try:
        with grpc.insecure_channel(
            f"unix:{socket}", options=[("grpc.default_authority", "localhost")]
        ) as channel:
            call = channel.unary_unary(
                LIST_METHOD,
                request_serializer=classes["ListPodResourcesRequest"].SerializeToString,
                response_deserializer=classes["ListPodResourcesResponse"].FromString,
            )
            answer = call(classes["ListPodResourcesRequest"](), timeout=timeout_seconds)
    except grpc.RpcError as error:
        raise SourceError(
            f"the kubelet's PodResources at {socket} does not list pods: {error}; "
            "GPUs are matched to pods by their processes alone"
        ) from error
    found: dict[str, list[PodReference]] = defaultdict(list)
    for pod in answer.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                if devices.resource_name.startswith(GPU_RESOURCE_PREFIX):
                    reference = PodReference(pod.namespace, pod.name, container.name)
                    for device in devices.device_ids:
                        # A shared GPU (time slicing, MPS) is "<uuid>::<replica>".
                        uuid = device.partition("::")[0]
                        if reference not in found[uuid]:
                            found[uuid].append(reference)
    return {uuid: tuple(references) for uuid, references in found.items()}
