"""What k8s/manifests renders to is taken in a server-side dry-run, object by object."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster

from k8s.discovery import is_served
from k8s.resources import Bare, Resource

pytestmark = pytest.mark.contract
MANIFESTS = Path(__file__).parents[2] / "k8s" / "manifests"
KUSTOMIZATIONS = sorted(
    str(path.parent.relative_to(MANIFESTS.parent)) for path in MANIFESTS.rglob("kustomization.yaml")
)
CLUSTER_WIDE = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


@lru_cache
def rendered(folder: str) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl to render the manifests with")
    said = subprocess.run(
        [kubectl, "kustomize", str(MANIFESTS.parent / folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [document for document in yaml.safe_load_all(said.stdout) if document]


def resource_of(document: dict[str, Any]) -> Resource:
    group, _, version = document["apiVersion"].rpartition("/")
    kind = document["kind"]
    plural = kind.lower().removesuffix("y") + "ies" if kind.endswith("y") else kind.lower() + "s"
    return Resource(group, version, plural, kind, kind not in CLUSTER_WIDE, Bare)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_every_object_that_is_served_is_taken_in_a_dry_run(cluster: Cluster, folder):
    documents = rendered(folder)
    assert documents
    own = [one["metadata"]["name"] for one in documents if one["kind"] == "Namespace"]
    for name in {"pitwall", *own}:  # a dry-run makes none
        if cluster.find(f"/api/v1/namespaces/{name}") is None:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            cluster.post("/api/v1/namespaces", namespace)
    passed_over = set()
    for document in documents:
        resource = resource_of(document)
        if not is_served(cluster.connection, resource):
            passed_over.add(f"{resource.kind} of {resource.api_version}")
            continue
        name, namespace = document["metadata"]["name"], document["metadata"].get("namespace")
        strictly: dict[str, Any] = {"params": {"fieldValidation": "Strict"}, "dry_run": True}
        if cluster.find(resource.path(name, namespace=namespace)) is None:
            said = cluster.post(resource.path(namespace=namespace), document, **strictly)
        else:
            said = cluster.patch(resource.path(name, namespace=namespace), document, **strictly)
        assert said["kind"] == document["kind"]
    if passed_over:
        assert cluster.kind == "simulator", passed_over
        pytest.skip(f"the simulator does not serve {', '.join(sorted(passed_over))}")
