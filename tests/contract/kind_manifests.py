"""Workloads of each kind, as small as their controllers take them, two GPU pods where it has a size."""

from __future__ import annotations

from typing import Any

from cluster import pod_spec

QUEUE = "kueue.x-k8s.io/queue-name"


def template(pool: str, **options: Any) -> dict[str, Any]:
    """A pod template that lands on the test's own nodes, one pod a node."""
    spec = {**pod_spec(gpus=8, grace_seconds=2), "nodeSelector": {"pool": pool}, **options}
    return {"metadata": {"labels": {"app": "train"}}, "spec": spec}


def job_spec(pool: str, **options: Any) -> dict[str, Any]:
    """A Job of two ranks."""
    return {
        "parallelism": 2,
        "completions": 2,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": template(pool, restartPolicy="Never"),
        **options,
    }


def job(pool: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", **metadata},
        "spec": job_spec(pool, suspend=True),
    }


def deployment(pool: str, kind: str = "Deployment") -> dict[str, Any]:
    spec: dict[str, Any] = {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "train"}},
        "template": template(pool),
    }
    if kind == "StatefulSet":
        spec |= {"serviceName": "train", "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "train"}, "spec": spec}


def jobset(pool: str, *, sparing: bool = False, **metadata: Any) -> dict[str, Any]:
    """Two Jobs of one rank each, and no restarts; with sparing the pattern that ignores disruptions."""
    policy = {
        "rules": [
            {
                "action": "FailJob",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ]
    }
    one = job_spec(pool, parallelism=1, completions=1, podReplacementPolicy="Failed")
    if sparing:
        one["podFailurePolicy"] = policy
    rule = {
        "name": "disruption",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "train", **metadata},
        "spec": {
            "network": {"enableDNSHostnames": False},
            "successPolicy": {"operator": "All"},
            "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
            "failurePolicy": {
                "maxRestarts": 0,
                "restartStrategy": "Recreate",
                **({"rules": [rule]} if sparing else {}),
            },
            "replicatedJobs": [
                {
                    "name": "workers",
                    "replicas": 2,
                    "template": {"spec": one},
                }
            ],
        },
    }


def training_runtime(pool: str) -> dict[str, Any]:
    inner = job_spec(pool)
    inner["template"]["spec"]["containers"][0]["name"] = "node"
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": "plain", "labels": {"trainer.kubeflow.org/framework": "plainml"}},
        "spec": {
            "mlPolicy": {"numNodes": 2},
            "template": {
                "spec": {
                    "replicatedJobs": [
                        {
                            "name": "node",
                            "template": {
                                "metadata": {
                                    "labels": {
                                        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
                                    }
                                },
                                "spec": inner,
                            },
                        }
                    ]
                }
            },
        },
    }


def trainjob(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "train", **metadata},
        "spec": {
            "suspend": False,
            "managedBy": "trainer.kubeflow.org/trainjob-controller",
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "TrainingRuntime",
                "name": "plain",
            },
            "trainer": {"numNodes": 2},
        },
    }


def kubeflow_job(pool: str, kind: str, *, elastic: bool = False) -> dict[str, Any]:
    """A leader and a worker, of the container's name that the operator looks for."""
    field, leader, container = {
        "PyTorchJob": ("pytorchReplicaSpecs", "Master", "pytorch"),
        "TFJob": ("tfReplicaSpecs", "Chief", "tensorflow"),
        "MPIJob": ("mpiReplicaSpecs", "Launcher", "mpi"),
        "XGBoostJob": ("xgbReplicaSpecs", "Master", "xgboost"),
        "PaddleJob": ("paddleReplicaSpecs", "Master", "paddle"),
        "JAXJob": ("jaxReplicaSpecs", "", "jax"),
    }[kind]

    def replicas(count: int) -> dict[str, Any]:
        pods = template(pool)
        pods["spec"]["containers"][0]["name"] = container
        return {
            "replicas": count,
            "restartPolicy": "OnFailure" if elastic else "Never",
            "template": pods,
        }

    specs = {"Worker": replicas(2)} if elastic or not leader else {"Worker": replicas(1)}
    if leader and not elastic:
        specs[leader] = replicas(1)
    body: dict[str, Any] = {field: specs, "runPolicy": {"suspend": False}}
    if elastic:
        body["elasticPolicy"] = {"minReplicas": 1, "maxReplicas": 2, "rdzvBackend": "c10d"}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": "train"},
        "spec": body,
    }


def leader_worker_set(pool: str) -> dict[str, Any]:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "train"},
        "spec": {
            "replicas": 2,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {
                    "maxUnavailable": 1,
                    "maxSurge": 0,
                    "partition": 0,
                },
            },
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": {
                "size": 2,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": template(pool),
            },
        },
    }


def volcano_job(pool: str, *, max_retry: int = 3) -> dict[str, Any]:
    return {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        "metadata": {"name": "train"},
        "spec": {
            "minAvailable": 2,
            "maxRetry": max_retry,
            "queue": "default",
            "schedulerName": "default-scheduler",
            "tasks": [
                {
                    "name": "worker",
                    "replicas": 2,
                    "minAvailable": 2,
                    "template": template(pool, restartPolicy="Never"),
                }
            ],
        },
    }


def _ray_spec(pool: str) -> dict[str, Any]:
    head, worker = template(pool), template(pool)
    head["spec"]["containers"][0]["name"] = "ray-head"
    worker["spec"]["containers"][0]["name"] = "ray-worker"
    return {
        "rayVersion": "2.52.0",
        "headGroupSpec": {"rayStartParams": {}, "template": head},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": 1,
                "minReplicas": 1,
                "maxReplicas": 2,
                "rayStartParams": {},
                "template": worker,
            }
        ],
    }


def ray_cluster(pool: str) -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "train"},
        "spec": _ray_spec(pool),
    }


def ray_job(pool: str) -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "train"},
        "spec": {
            "entrypoint": "python train.py",
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": _ray_spec(pool),
        },
    }


def queues(pool: str) -> list[dict[str, Any]]:
    """A flavor, a queue of the cluster and one of the namespace, with room for the whole test."""
    version = "kueue.x-k8s.io/v1beta2"
    quota = [
        {"name": name, "nominalQuota": amount}
        for name, amount in (("cpu", "1000"), ("memory", "1000Gi"), ("nvidia.com/gpu", "1000"))
    ]
    return [
        {
            "apiVersion": version,
            "kind": "ResourceFlavor",
            "metadata": {"name": pool},
            "spec": {"nodeLabels": {"pool": pool}},
        },
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": {"name": pool},
            "spec": {
                "namespaceSelector": {},
                "queueingStrategy": "BestEffortFIFO",
                "stopPolicy": "None",
                "preemption": {
                    "reclaimWithinCohort": "Never",
                    "withinClusterQueue": "Never",
                    "borrowWithinCohort": {"policy": "Never"},
                },
                "resourceGroups": [
                    {
                        "coveredResources": ["cpu", "memory", "nvidia.com/gpu"],
                        "flavors": [{"name": pool, "resources": quota}],
                    }
                ],
            },
        },
        {
            "apiVersion": version,
            "kind": "LocalQueue",
            "metadata": {"name": "gpus"},
            "spec": {"clusterQueue": pool, "stopPolicy": "None"},
        },
    ]
