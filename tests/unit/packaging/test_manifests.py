"""The manifests, read as they are: what runs, as whom, with which rights and settings."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from app.cli.program import build
from app.settings import Settings
from collectors.settings import AgentSettings
from k8s.workloads import KINDS

PROVEN = [kind for kind in KINDS if kind.proof == "real controller"]
ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "k8s" / "manifests"
NOT_PITWALLS = {"HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}


def _read(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


KUSTOMIZATION = _read(MANIFESTS / "kustomization.yaml")[0]
OBJECTS = [one for name in KUSTOMIZATION["resources"] for one in _read(MANIFESTS / name)]


def _of(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


PODS = {
    name: workload["spec"]["template"]["spec"]
    for kind in ("DaemonSet", "Deployment")
    for name, workload in _of(kind).items()
}


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_every_file_is_part_of_the_kustomization() -> None:
    files = {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(KUSTOMIZATION["resources"])


def test_agent_ingest_worker_and_page_run_a_command_that_exists() -> None:
    assert PODS.keys() == {"pitwall-agent", "pitwall-ingest", "pitwall-worker", "pitwall-web"}
    commands = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    images = {image["name"] for image in KUSTOMIZATION["images"]}
    for pod in PODS.values():
        for container in _containers(pod):
            assert container["args"][0] in commands
            assert container["image"] in images


def test_every_variable_that_is_set_is_a_setting() -> None:
    named = {*Settings.model_fields, *AgentSettings.model_fields}
    literals = KUSTOMIZATION["configMapGenerator"][0]["literals"]
    variables = {literal.partition("=")[0] for literal in literals}
    for pod in PODS.values():
        variables |= {one["name"] for c in _containers(pod) for one in c.get("env", [])}
    for variable in variables - NOT_PITWALLS:
        assert variable.removeprefix("PITWALL_").lower() in named, variable


def test_all_but_the_agent_run_hardened() -> None:
    for name in PODS.keys() - {"pitwall-agent"}:
        pod = PODS[name]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostPID", "hostNetwork", "hostIPC"}
        for container in _containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_the_agent_reaches_every_gpu_node_and_what_it_must_read_there() -> None:
    pod = PODS["pitwall-agent"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["hostPID"] is True
    paths = {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    assert paths == {"/var/lib/pitwall", "/dev/kmsg", "/var/lib/kubelet/pod-resources"}
    (container,) = pod["containers"]
    writable = {one["name"] for one in container["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"spool", "tmp"}


def test_the_agents_token_is_for_pitwall_alone_and_no_pod_has_one_it_does_not_need() -> None:
    tokens = {}
    for name, pod in PODS.items():
        assert pod["automountServiceAccountToken"] is False
        sources = [
            source["serviceAccountToken"]
            for volume in pod["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        ]
        tokens[name] = [source.get("audience") for source in sources]
    assert tokens == {
        "pitwall-agent": [Settings.model_fields["token_audience"].default],
        "pitwall-ingest": [None],
        "pitwall-worker": [None],
        "pitwall-web": [],
    }


def test_the_agents_life_does_not_depend_on_nvml() -> None:
    (container,) = PODS["pitwall-agent"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert "exec" not in container["livenessProbe"]


def test_the_page_listens_to_its_own_loopback_while_it_has_no_sign_in() -> None:
    (container,) = PODS["pitwall-web"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["PITWALL_WEB_HOST"] == "127.0.0.1"


def test_what_keeps_state_takes_the_stores_address_from_a_secret() -> None:
    for name in PODS.keys() - {"pitwall-agent"}:
        for container in _containers(PODS[name]):
            (url,) = [one for one in container["env"] if one["name"] == "PITWALL_STORE_URL"]
            assert url["valueFrom"]["secretKeyRef"] == {"name": "pitwall-store", "key": "url"}


def _rules(account: str) -> set[tuple[str, str]]:
    """What an account may: (verb, resource) over all roles bound to it."""
    roles = [
        binding["roleRef"]["name"]
        for binding in _of("ClusterRoleBinding").values()
        if account in {subject["name"] for subject in binding["subjects"]}
    ]
    return {
        (verb, resource)
        for role in roles
        for rule in _of("ClusterRole")[role]["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }


def test_each_account_may_what_it_must_and_no_more() -> None:
    assert _rules("pitwall-agent") == _rules("pitwall-web") == set()
    assert _rules("pitwall-ingest") == {
        ("create", "tokenreviews"),
        ("create", "subjectaccessreviews"),
    }
    looking = ("get", "list", "watch")
    worker = {(verb, what) for verb, what in _rules("pitwall-worker") if verb not in looking}
    assert worker == {
        ("patch", "nodes"),
        ("create", "pods/eviction"),
        ("create", "events"),
        ("patch", "events"),
        ("create", "subjectaccessreviews"),
        *((write.verb, write.plural) for kind in PROVEN for write in kind.writes),
    }


def test_the_roles_hold_each_workload_kind_that_is_watched_and_each_that_is_written() -> None:
    def granted(role: str) -> set[tuple[str, str, str]]:
        return {
            (verb, group, resource)
            for rule in _of("ClusterRole")[role]["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    looked_at = {
        (verb, kind.resource.group, kind.resource.plural)
        for kind in KINDS
        for verb in ("get", "list", "watch")
    }
    assert looked_at <= granted("pitwall-viewer")
    written = {(write.verb, write.group, write.plural) for kind in PROVEN for write in kind.writes}
    assert written <= granted("pitwall-operator")


def test_nothing_is_bound_to_the_role_for_emergencies_and_no_rule_is_a_wildcard() -> None:
    bound = {binding["roleRef"]["name"] for binding in _of("ClusterRoleBinding").values()}
    assert "pitwall-break-glass" in _of("ClusterRole")
    assert "pitwall-break-glass" not in bound
    for role in _of("ClusterRole").values():
        for rule in role["rules"]:
            assert not {"*", "secrets"} & {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}


def test_what_has_replicas_has_a_budget() -> None:
    replicated = {n for n, one in _of("Deployment").items() if one["spec"]["replicas"] > 1}
    assert replicated == _of("PodDisruptionBudget").keys()


def test_kustomize_renders_them_with_a_tag_on_each_image() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, so nothing here renders kustomizations")
    done = subprocess.run(
        ["kubectl", "kustomize", MANIFESTS], capture_output=True, text=True, check=True
    )
    images = re.findall(r"^ +image: (.*)$", done.stdout, re.M)
    assert images
    assert {image.rpartition(":")[2] for image in images} == {"0.1.0"}
