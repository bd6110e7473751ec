"""What runs on the floor when the curtain rises: training gangs, batch jobs, a service.

About 85 % of the nodes are busy, and the spare ones are spread over racks and blocks, so that a
drained rank finds a node near its peers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.simulator.hosts import GPUS_PER_NODE, Host
from app.simulator.identity import Identity

Object = dict[str, Any]

# One node in seven is spare: 86 % busy.
SPARE_EVERY = 7
TEAMS = ("pretraining", "alignment", "vision", "speech")
SERVING = "serving"
_MODELS = ("atlas", "harrier", "kestrel", "merlin", "osprey", "petrel", "redwing", "siskin")
_SIZES = ("70b", "34b", "13b", "7b")


@dataclass(frozen=True)
class Placed:
    """A Job with the host and the number of GPUs of each of its pods, in order of ranks."""

    job: Object
    hosts: tuple[Host, ...]
    started_seconds_ago: float


@dataclass(frozen=True)
class Floor:
    """What the busy hosts are for."""

    gangs: tuple[Placed, ...]
    batches: tuple[Placed, ...]
    service: tuple[Host, ...]


def plan_floor(hosts: Sequence[Host], identity: Identity) -> Floor:
    """Divide the hosts among jobs: gangs on consecutive hosts, then batch jobs and a service."""
    busy = [host for number, host in enumerate(hosts) if not _is_spare(number, len(hosts))]
    if not busy:
        return Floor((), (), ())
    shared_count = min(len(busy), max(1, len(busy) // 16))
    shared, whole = busy[-shared_count:], busy[:-shared_count]
    gangs: list[Placed] = []
    at = 0
    for number, size in enumerate(_gang_sizes(len(whole), largest=max(2, len(hosts) // 4))):
        gangs.append(_gang(number, whole[at : at + size], identity))
        at += size
    batches = tuple(_batch(number, host, identity) for number, host in enumerate(shared))
    return Floor(tuple(gangs), batches, tuple(shared[:3]))


def _is_spare(number: int, total: int) -> bool:
    if total < SPARE_EVERY:
        return total > 1 and number == total - 1
    return number % SPARE_EVERY == SPARE_EVERY - 1


def _gang_sizes(nodes: int, *, largest: int) -> Iterator[int]:
    """Powers of two that add up to `nodes`: few large gangs, many small ones."""
    top = 1 << (largest.bit_length() - 1)
    left = nodes
    while left > 0:
        for size in (top, top // 2, top // 4, top // 8, 8, 4, 4, 2, 2):
            fitting = min(max(size, 2), 1 << (left.bit_length() - 1))
            yield fitting
            left -= fitting
            if left <= 0:
                return
        top = max(16, top // 2)


def _gang(number: int, hosts: Sequence[Host], identity: Identity) -> Placed:
    team = TEAMS[number % len(TEAMS)]
    model = _MODELS[number % len(_MODELS)]
    name = f"{model}-{_SIZES[number // 2 % len(_SIZES)]}-{number + 1}"
    interval = (1800, 3600, 900)[number % 3]
    spec: Object = {
        "parallelism": len(hosts),
        "completions": len(hosts),
        "completionMode": "Indexed",
        "backoffLimit": 6,
        "template": _template(
            name,
            team=team,
            image="registry.pitwall.dev/training/megatron:25.09",
            command=["torchrun", "--nnodes", str(len(hosts)), "train.py"],
            gpus=GPUS_PER_NODE,
            grace_seconds=60 if number % 3 == 1 else 30,
        ),
    }
    if number % 2 == 0:
        rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
        spec |= {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 3}
    job = {
        "metadata": {
            "name": name,
            "namespace": team,
            "labels": {"app": name, "pitwall.dev/team": team},
            "annotations": {"pitwall.dev/checkpoint-interval-seconds": str(interval)},
        },
        "spec": spec,
    }
    hours = 2.0 + 140.0 * identity.fraction("job-age", name)
    return Placed(job, tuple(hosts), hours * 3600.0)


def _batch(number: int, host: Host, identity: Identity) -> Placed:
    """A plain Job whose pods of 2 GPUs share a host; each pod is independent of the others."""
    team = TEAMS[(number + 1) % len(TEAMS)]
    name = f"evaluate-{_MODELS[(number * 3 + 2) % len(_MODELS)]}-{number + 1}"
    parallelism = 2
    template = _template(
        name,
        team=team,
        image="registry.pitwall.dev/evaluation/harness:1.4",
        command=["python3", "evaluate.py"],
        gpus=2,
        grace_seconds=30,
    )
    template["metadata"]["annotations"] = {"simulator.pitwall.dev/duration-seconds": "2700"}
    job = {
        "metadata": {
            "name": name,
            "namespace": team,
            "labels": {"app": name, "pitwall.dev/team": team},
        },
        "spec": {
            "parallelism": parallelism,
            "completions": 48,
            "backoffLimit": 10,
            "template": template,
        },
    }
    minutes = 1.0 + 40.0 * identity.fraction("batch-age", name)
    return Placed(job, (host,) * parallelism, minutes * 60.0)


def _template(
    name: str,
    *,
    team: str,
    image: str,
    command: list[str],
    gpus: int,
    grace_seconds: int,
) -> Object:
    share = gpus / GPUS_PER_NODE
    return {
        "metadata": {"labels": {"app": name, "pitwall.dev/team": team}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": grace_seconds,
            "containers": [
                {
                    "name": "worker",
                    "image": image,
                    "command": command,
                    "resources": {
                        "limits": {"nvidia.com/gpu": str(gpus)},
                        "requests": {
                            "cpu": str(int(96 * share)),
                            "memory": f"{int(1024 * share)}Gi",
                        },
                    },
                    "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
                }
            ],
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        },
    }


def service_objects(replicas: int) -> tuple[Object, Object]:
    """A Deployment of pods with 2 GPUs, and the budget that keeps all but one of them."""
    labels = {"app": "model-gateway"}
    template = _template(
        "model-gateway",
        team=SERVING,
        image="registry.pitwall.dev/serving/gateway:3.2",
        command=["serve"],
        gpus=2,
        grace_seconds=30,
    )
    del template["spec"]["restartPolicy"]
    deployment = {
        "metadata": {
            "name": "model-gateway",
            "namespace": SERVING,
            "labels": {**labels, "pitwall.dev/team": SERVING},
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
    budget = {
        "metadata": {"name": "model-gateway", "namespace": SERVING},
        "spec": {"minAvailable": max(1, replicas - 1), "selector": {"matchLabels": labels}},
    }
    return deployment, budget


def daemon_set(name: str, image: str, *, namespace: str) -> Object:
    """A system DaemonSet of NVIDIA's."""
    labels = {"app": name}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {
                            "name": name,
                            "image": image,
                            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                        }
                    ],
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                    "priorityClassName": "system-node-critical",
                },
            },
        },
    }
