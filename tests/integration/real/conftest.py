"""A whole site on a real control plane: nodes, a training job, and Pitwall as its manifests say.

The test plays what no control plane brings: kubelets, containers, and the port-forward.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "contract"))  # the suite's own modules import each other so

from cluster import Cluster  # noqa: E402
from control_plane import ControlPlane, free_ports  # noqa: E402
from kubelet import Kubelets  # noqa: E402

from k8s.objects import Pod, is_terminal  # noqa: E402
from tests.databases import PostgresqlMissing, postgresql_server  # noqa: E402
from tests.integration.agent.conftest import library  # noqa: E402, F401
from tests.integration.real.machines import GPUS, Machine, Runtime  # noqa: E402
from tests.integration.real.processes import Kubectl, Processes, environment_of  # noqa: E402
from tests.integration.real.typed import fill_in, lines_for_a_real_cluster  # noqa: E402

ARTIFACTS = ROOT / "tests" / "artifacts"
GPU_NODES = 5
OTHER_NODES = 2  # where Pitwall's own pods go
JOB, JOB_NAMESPACE = "pretrain", "train"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


@dataclass
class Site:
    """The cluster, its machines, Pitwall's processes, and the shell of a person at it."""

    cluster: Cluster
    kubectl: Kubectl
    kubeconfig: Path
    machines: dict[str, Machine]
    processes: Processes
    ingest_url: str = ""
    web_url: str = ""
    store: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    agents: dict[str, dict[str, str]] = field(default_factory=dict)

    def pods(self) -> list[Pod]:
        """The job's pods that have not ended, by rank."""
        found = [
            pod
            for pod in self.cluster.pods(JOB_NAMESPACE)
            if not is_terminal(pod) and pod.metadata.deletion_timestamp is None
        ]
        return sorted(found, key=lambda pod: pod.metadata.name)

    def running(self) -> list[Pod] | None:
        """The job's pods once all of them run."""
        pods = self.pods()
        whole = len(pods) == 2 and all(pod.status.phase == "Running" for pod in pods)
        return pods if whole else None

    def token(self, account: str, *words: str) -> str:
        return self.kubectl("-n", "pitwall", "create", "token", account, *words).strip()

    def person(self, account: str) -> dict[str, str]:
        """The environment that README's line sets for whoever has that account."""
        return {"PITWALL_URL": self.ingest_url, "PITWALL_TOKEN": self.token(account)}

    def pitwall(self, *words: str, account: str) -> subprocess.CompletedProcess[str]:
        return self.processes.run(*words, environment=self.person(account))

    def read(self, *words: str) -> Any:
        """What a command writes with -o json, as on-call."""
        done = self.processes.run(*words, "-o", "json", environment=self._oncall)
        assert done.returncode == 0, done.stderr + self.processes.logs()
        return json.loads(done.stdout)

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.read("nodes") if one["name"] == name)
        return found

    def wait_for(self, what: str, look: Callable[[], Any], *, seconds: float) -> Any:
        """The first true answer of `look`, which is asked again and again."""
        end = time.monotonic() + seconds
        while not (found := look()):
            if ended := self.processes.ended():
                pytest.fail(f"{', '.join(ended)} ended{self.processes.logs()}")
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come within {seconds} s{self.processes.logs()}")
            time.sleep(0.1)
        return found

    @property
    def _oncall(self) -> dict[str, str]:
        if not hasattr(self, "_known"):
            self._known = self.person("pitwall-oncall")
        return self._known

    def start_agent(self, name: str) -> None:
        self.processes.start(f"agent-{name}", "agent", environment=self.agents[name])

    def stop_agent(self, name: str) -> None:
        assert self.processes.stop(f"agent-{name}") == 0


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    library: Path,  # noqa: F811
) -> Iterator[Site]:
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if not named:
        pytest.skip(f"KUBEBUILDER_ASSETS names no folder with {', '.join(PROGRAMS)}")
    assets = Path(named)
    if missing := [name for name in PROGRAMS if not (assets / name).exists()]:
        pytest.skip(f"{assets} (KUBEBUILDER_ASSETS) holds no {' and no '.join(missing)}")
    folder = tmp_path_factory.mktemp("site")
    control = folder / "control-plane"
    control.mkdir()
    plane = ControlPlane(control, assets)
    processes = Processes(folder, path=(assets,))
    ends: list[Callable[[], object]] = [plane.stop]
    try:
        plane.start()

        def kubectl(*words: str, stdin: str = "") -> str:
            done = subprocess.run(
                [assets / "kubectl", "--kubeconfig", plane.kubeconfig, *words],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        cluster = Cluster(
            kind="real",
            kubeconfig=plane.kubeconfig,
            connection=plane.connection(),
            forget_history=plane.compact,
            holding_controllers=plane.holding_controllers,
            holding_store=plane.holding_store,
        )
        names = [f"h100-{number}" for number in range(GPU_NODES)]
        machines = {
            name: Machine(folder / name, name, library, number=number)
            for number, name in enumerate(names, start=1)
        }
        made = Site(cluster, kubectl, plane.kubeconfig, machines, processes)
        url = _store(folder, ends)
        made.store = url.split(":")[0]
        ends.append(_start_nodes(made))
        _apply(made, url)
        runtime = Runtime(machines, lambda: cluster.pods(JOB_NAMESPACE))
        ends.append(runtime.stop)
        _start_job(made)
        ends.append(processes.stop_all)
        _start_pitwall(made)
        yield made
    finally:
        for end in ends[::-1]:
            end()


def _store(folder: Path, ends: list[Callable[[], object]]) -> str:
    """Address of an empty PostgreSQL, as README asks for, or of SQLite where there is none."""
    server = postgresql_server()
    try:
        running = server.__enter__()
    except PostgresqlMissing as missing:
        print(f"the store is SQLite: {missing}")
        return f"sqlite:///{folder / 'pitwall.db'}"
    ends.append(lambda: server.__exit__(None, None, None))
    return running.empty_database().replace("postgresql+psycopg", "postgresql")


def _apply(site: Site, url: str) -> None:
    """README's first two lines, in a shell, where nothing but KUBECONFIG says which cluster."""
    create, apply, *_ = lines_for_a_real_cluster()
    create = fill_in(create, {"postgresql://pitwall:PASSWORD@HOST/pitwall": f"'{url}'"})
    environment = site.processes.environment(KUBECONFIG=site.kubeconfig)
    for line in (create, apply):
        done = subprocess.run(
            ["/bin/sh", "-ec", line],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    # What NVIDIA's GPU operator brings.
    nvidia = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    }
    site.kubectl("apply", "-f", "-", stdin=json.dumps(nvidia))


def _start_nodes(site: Site) -> Callable[[], None]:
    cluster = site.cluster
    for number, name in enumerate(site.machines):
        labels = {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.count": str(GPUS),
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
            "network.topology.nvidia.com/spine": "block-a",
            "network.topology.nvidia.com/leaf": f"rack-{number // 3}",
        }
        cluster.create_node(name, gpus=GPUS, labels=labels)
    others = [f"services-{number}" for number in range(OTHER_NODES)]
    for name in others:
        cluster.create_node(name, gpus=0)
    site.kubectl("create", "namespace", JOB_NAMESPACE)
    kubelets = [Kubelets(cluster, namespace) for namespace in (JOB_NAMESPACE, "pitwall")]
    for kubelet in kubelets:
        kubelet.nodes.update(site.machines, others)

    def in_service() -> bool:
        return not any(cluster.node(name).spec.taints for name in [*site.machines, *others])

    cluster.until(in_service, "the nodes take pods")

    def stop() -> None:
        for kubelet in kubelets:
            kubelet.stop()

    return stop


def _start_job(site: Site) -> None:
    path = f"/api/v1/namespaces/{JOB_NAMESPACE}/serviceaccounts/default"
    site.cluster.until(lambda: site.cluster.find(path), "the namespace has its service account")
    site.cluster.create_job(
        JOB_NAMESPACE,
        JOB,
        parallelism=2,
        gpus=GPUS,
        labels={"pitwall.dev/team": "language"},
        grace_seconds=30,
        pod={"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]},
    )
    site.cluster.until(site.running, "both pods of the job run")


def _start_pitwall(site: Site) -> None:
    """Every process with its pod's own environment, but for what is this machine's: ports, paths, files."""
    kubectl, processes = site.kubectl, site.processes
    ingest_port, web_port = free_ports(2)
    site.ingest_url = f"http://127.0.0.1:{ingest_port}"
    site.web_url = f"http://127.0.0.1:{web_port}"
    ingest = environment_of(kubectl, "deployment/pitwall-ingest") | {
        "KUBECONFIG": str(_kubeconfig(site, "pitwall-ingest")),
        "PITWALL_INGEST_HOST": "127.0.0.1",
        "PITWALL_INGEST_PORT": str(ingest_port),
    }
    done = processes.run("migrate", environment=ingest)
    assert done.returncode == 0, done.stdout + done.stderr
    processes.start("ingest", "ingest", environment=ingest)
    worker = environment_of(kubectl, "deployment/pitwall-worker")
    worker["KUBECONFIG"] = str(_kubeconfig(site, "pitwall-worker"))
    processes.start("worker", "worker", environment=worker)
    web = environment_of(kubectl, "deployment/pitwall-web")
    processes.start("web", "web", environment=web | {"PITWALL_WEB_PORT": str(web_port)})
    site.wait_for("ingest", lambda: _answers(f"{site.ingest_url}/readyz"), seconds=60)
    for name, machine in site.machines.items():
        uid = site.cluster.node(name).metadata.uid
        bound = ("--bound-object-kind", "Node", "--bound-object-name", name)
        token = site.token(
            "pitwall-agent", "--audience", "pitwall", *bound, "--bound-object-uid", uid
        )
        machine.token.write_text(token)
        site.agents[name] = (
            environment_of(kubectl, "daemonset/pitwall-agent", node=name)
            | machine.environment()
            | {"PITWALL_INGEST_URL": site.ingest_url}
        )
        site.start_agent(name)
    site.wait_for("the page", lambda: _answers(f"{site.web_url}/_stcore/health"), seconds=60)


def _kubeconfig(site: Site, account: str) -> Path:
    """A kubeconfig that holds the token of that ServiceAccount and no more."""
    path = site.processes.folder / f"{account}.kubeconfig"
    document = json.loads(site.kubeconfig.read_text())
    document["users"] = [{"name": "u", "user": {"token": site.token(account)}}]
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """The browser's program, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")
