"""A real API server holds Pitwall's accounts to what they are for, by the policy and the roles of the manifests."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_dry_run import ROOT, Kubectl, kubectl

from app.operations.accounts import acting_as
from app.operations.model import OUT_OF_SERVICE, Step
from app.settings import Settings
from k8s.client import Impersonation, connect
from k8s.errors import ApiError
from k8s.events import Note, Subject, write_event
from k8s.nodes import cordon, uncordon
from k8s.out_of_service import put_in_service, put_out_of_service
from k8s.resources import NODES

__all__ = ["kubectl"]
pytestmark = pytest.mark.contract

WORKER, BREAK_GLASS, ONCALL = "pitwall-worker", "pitwall-break-glass", "pitwall-oncall"
# What the API server itself puts on a node that no kubelet has spoken for.
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
FOREIGN = {"key": "example.com/maintenance", "effect": "NoSchedule"}
OURS = {"key": "pitwall.dev/probation", "effect": "PreferNoSchedule"}
OUT = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}
Try = Callable[..., str]


@pytest.fixture(scope="module")
def attempt(kubectl: Kubectl) -> Try:
    """Patches the node as an account, in a dry run; gives what kubectl said."""
    for folder in ("", "break-glass"):
        kubectl("apply", "-k", str(ROOT / "k8s/manifests" / folder))
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "n1",
            "labels": {"pool": "a"},
            "annotations": {"example.com/note": "theirs", "pitwall.dev/operation": "{}"},
        },
        "spec": {"taints": [NOT_READY, FOREIGN, OURS], "providerID": "metal://1"},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(node))

    def patch(account: str, change: dict[str, Any], *words: str) -> str:
        return kubectl(
            *("patch", "node", "n1", "--type=merge", "-p", json.dumps(change)),
            *("--dry-run=server", "--as", f"system:serviceaccount:pitwall:{account}", *words),
            check=False,
        )

    # The API server takes a new policy up within seconds.
    end = time.monotonic() + 30
    while "no label" not in patch(WORKER, {"metadata": {"labels": {"pool": "b"}}}):
        assert time.monotonic() < end, "the policy was never enforced"
        time.sleep(0.2)
    return patch


ALLOWED = {
    "cordon": (WORKER, {"spec": {"unschedulable": True}}),
    "annotation": (WORKER, {"metadata": {"annotations": {"pitwall.dev/operation": None}}}),
    "own taint off": (WORKER, {"spec": {"taints": [NOT_READY, FOREIGN]}}),
    "out-of-service on": (BREAK_GLASS, {"spec": {"taints": [NOT_READY, FOREIGN, OURS, OUT]}}),
    "its annotation": (
        BREAK_GLASS,
        {"metadata": {"annotations": {"pitwall.dev/out-of-service": "{}"}}},
    ),
    "a person's own label": (ONCALL, {"metadata": {"labels": {"pool": "b"}}}),
}
REFUSED = {
    "label changed": (WORKER, {"metadata": {"labels": {"pool": "b"}}}, "no label"),
    "label added": (WORKER, {"metadata": {"labels": {"mine": "1"}}}, "no label"),
    "another's annotation": (
        WORKER,
        {"metadata": {"annotations": {"example.com/note": "ours"}}},
        "no annotation",
    ),
    "another's annotation off": (
        WORKER,
        {"metadata": {"annotations": {"example.com/note": None}}},
        "no annotation",
    ),
    "another's taint off": (WORKER, {"spec": {"taints": [NOT_READY, OURS]}}, "no taint"),
    "another's taint changed": (
        WORKER,
        {"spec": {"taints": [NOT_READY, {**FOREIGN, "value": "x"}, OURS]}},
        "no taint",
    ),
    "out-of-service by the worker": (
        WORKER,
        {"spec": {"taints": [NOT_READY, FOREIGN, OURS, OUT]}},
        "no taint",
    ),
    "finalizer": (WORKER, {"metadata": {"finalizers": ["example.com/x"]}}, "nothing else"),
    "cordon in an emergency": (BREAK_GLASS, {"spec": {"unschedulable": True}}, "cordons"),
    "another's taint in an emergency": (
        BREAK_GLASS,
        {"spec": {"taints": [NOT_READY, OURS]}},
        "no taint",
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_pitwall_is_for_is_taken(attempt: Try, name: str) -> None:
    account, change = ALLOWED[name]
    words = ("--field-manager=kubectl",)
    said = attempt(account, change, *words)
    assert "node/n1 patched" in said, said


@pytest.mark.parametrize("name", REFUSED)
def test_what_pitwall_is_not_for_is_refused_by_the_policy(attempt: Try, name: str) -> None:
    account, change, why = REFUSED[name]
    said = attempt(account, change)
    assert "ValidatingAdmissionPolicy 'pitwall-nodes'" in said
    assert why in said


def test_a_person_whom_the_worker_impersonates_is_known_by_the_field_manager(attempt: Try) -> None:
    label, words = {"metadata": {"labels": {"pool": "b"}}}, ("--field-manager=pitwall",)
    assert "no label" in attempt(ONCALL, label, *words)
    assert "patched" in attempt(ONCALL, {"spec": {"unschedulable": True}}, *words)


def test_the_worker_may_act_as_the_account_for_emergencies_and_as_no_other(
    attempt: Try,
    kubectl: Kubectl,
) -> None:
    def may(account: str, *words: str) -> bool:
        user = f"system:serviceaccount:pitwall:{account}"
        said = kubectl("auth", "can-i", *words, "--as", user, check=False)
        return said.strip().splitlines()[-1] == "yes"

    named = "serviceaccounts/pitwall-break-glass"
    assert may(WORKER, "impersonate", named, "-n", "pitwall")
    assert not may(WORKER, "impersonate", "serviceaccounts/pitwall-oncall", "-n", "pitwall")
    assert not may(WORKER, "impersonate", "users/ada", "-A")
    assert may(BREAK_GLASS, "delete", "pods", "-A")
    assert not may(BREAK_GLASS, "create", "pods", "-A")
    assert not may("pitwall-automatic", "patch", "nodes", "-A")
    kubectl("apply", "-k", str(ROOT / "k8s/manifests/automatic"))
    end = time.monotonic() + 30
    while not may("pitwall-automatic", "patch", "nodes", "-A"):
        assert time.monotonic() < end, "the binding never counted"
    assert not may("pitwall-automatic", "delete", "pods", "-A")


def test_the_worker_gives_a_node_up_as_that_account_and_not_as_itself(
    attempt: Try,
    kubectl: Kubectl,
    tmp_path: Path,
) -> None:
    document = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    token = kubectl("-n", "pitwall", "create", "token", WORKER).strip()
    document["users"][0]["user"] = {"token": token}
    path = tmp_path / "worker.kubeconfig"
    path.write_text(json.dumps(document))
    worker = connect(path)
    uid = json.loads(kubectl("get", "node", "n1", "-o", "json"))["metadata"]["uid"]
    with pytest.raises(ApiError, match="no taint of a node but its own"):
        put_out_of_service(worker, "n1", uid=uid, operation_id="op-1")
    step = Step(OUT_OF_SERVICE, "Node/n1", uid, node="n1")
    who = acting_as(step, None, Settings(_env_file=None))
    emergency = worker.impersonating(who)
    assert put_out_of_service(emergency, "n1", uid=uid, operation_id="op-1").changed
    assert put_in_service(emergency, "n1", uid=uid, operation_id="op-1").changed
    cordon(worker, "n1")
    ada = worker.impersonating(Impersonation("ada"))
    with pytest.raises(ApiError, match="cannot impersonate"):
        uncordon(ada, "n1")
    assert uncordon(worker, "n1").changed
    about = Subject.of(NODES, "n1", uid)
    note = Note(about, "PitwallCordoned", "cordon", "n1 cordoned", datetime.now(UTC))
    write_event(worker, note, component="pitwall.dev/worker", instance="w1")


def test_impersonation_is_limited_to_the_people_who_are_named(kubectl: Kubectl) -> None:
    rules = [
        rule
        for document in yaml.safe_load_all(
            (ROOT / "k8s/manifests/impersonation/roles.yaml").read_text()
        )
        for rule in document.get("rules", ())
    ]
    assert rules
    assert all(rule["verbs"] == ["impersonate"] and rule["resourceNames"] for rule in rules)
    assert Path(ROOT / "k8s/manifests/impersonation/kustomization.yaml").exists()
    said = kubectl("apply", "-k", str(ROOT / "k8s/manifests/impersonation"), "--dry-run=server")
    assert said.count("(server dry run)") == 4
