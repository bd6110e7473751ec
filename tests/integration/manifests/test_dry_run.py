"""A real API server takes the manifests, and its RBAC gives each account what it must have."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from k8s.client import connect, version
from k8s.errors import KubernetesError

ROOT = Path(__file__).parents[3]
START_SECONDS = 60.0
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "nvidia"},
    "handler": "nvidia",
}

Kubectl = Callable[..., str]

pytestmark = pytest.mark.contract


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl as master of an API server with etcd, and nothing else, of KUBEBUILDER_ASSETS."""
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
    if not (assets / "kube-apiserver").exists() or not (assets / "kubectl").exists():
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd, kube-apiserver and kubectl")
    folder = tmp_path_factory.mktemp("control-plane")
    clients, peers, api = _free_ports(3)
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text("master-token,master,1,system:masters\n")
    kubeconfig = folder / "kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{api}", "insecure-skip-tls-verify": True}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "master-token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    kubeconfig.write_text(yaml.safe_dump(document))
    etcd_url = f"http://127.0.0.1:{clients}"
    commands = [
        [
            assets / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url,
            "--listen-peer-urls", f"http://127.0.0.1:{peers}",
        ],
        [
            assets / "kube-apiserver", f"--etcd-servers={etcd_url}", f"--secure-port={api}",
            "--bind-address=127.0.0.1", f"--cert-dir={folder / 'certificates'}",
            f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true",
        ],
    ]  # fmt: skip
    processes = []
    try:
        for command in commands:
            log = (folder / f"{Path(command[0]).name}.log").open("wb")
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            log.close()
        _wait_for(kubeconfig, folder / "kube-apiserver.log")

        def run(*words: str, stdin: str = "", check: bool = True) -> str:
            done = subprocess.run(
                [assets / "kubectl", "--kubeconfig", kubeconfig, *words],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0 or not check, done.stderr
            return done.stdout + done.stderr

        yield run
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=30)


def _wait_for(kubeconfig: Path, log: Path) -> None:
    connection = connect(kubeconfig)
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            version(connection)
            connection.get("/api/v1/namespaces/default")
            return
        except KubernetesError as error:
            if time.monotonic() > end:
                pytest.fail(f"the API server did not start: {error}\n{log.read_text()[-2000:]}")
            time.sleep(0.1)


def test_the_api_server_takes_all_of_it_in_a_dry_run(kubectl: Kubectl) -> None:
    # A dry run stores nothing, and so would not find the namespace of what follows it.
    kubectl("create", "namespace", "pitwall")
    said = kubectl("apply", "-k", str(ROOT / "k8s/manifests"), "--dry-run=server")
    assert said.count("(server dry run)") == 30
    policies = str(ROOT / "k8s/manifests/network-policy/policies.yaml")
    assert "created" in kubectl("apply", "-f", policies, "--dry-run=server")


def test_once_applied_pods_are_admitted_and_rights_are_as_meant(kubectl: Kubectl) -> None:
    kubectl("apply", "-k", str(ROOT / "k8s/manifests"))
    kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    listed = json.loads(kubectl("-n", "pitwall", "get", "daemonsets,deployments", "-o", "json"))
    assert len(listed["items"]) == 4
    for workload in listed["items"]:
        template = workload["spec"]["template"]
        metadata = {
            "name": workload["metadata"]["name"],
            "namespace": "pitwall",
            "labels": template["metadata"]["labels"],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": template["spec"],
        }
        said = kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        assert "Warning" not in said

    def may(account: str, *words: str) -> bool:
        user = f"system:serviceaccount:pitwall:{account}"
        said = kubectl("auth", "can-i", *words, "--as", user, "-A", check=False)
        return said.strip().splitlines()[-1] == "yes"

    for account in ("pitwall-worker", "pitwall-oncall"):
        assert may(account, "patch", "nodes")
        assert may(account, "create", "pods", "--subresource=eviction")
        assert may(account, "patch", "jobs.batch")
        assert not may(account, "delete", "pods")
        assert not may(account, "get", "secrets")
    assert may("pitwall-ingest", "create", "tokenreviews.authentication.k8s.io")
    assert not may("pitwall-ingest", "list", "nodes")
    assert not may("pitwall-agent", "list", "nodes")


def test_the_token_that_the_readme_asks_for_is_given(kubectl: Kubectl) -> None:
    assert kubectl("-n", "pitwall", "create", "token", "pitwall-oncall").count(".") == 2
