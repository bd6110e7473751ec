"""Events on nodes and workloads, as kubectl shows them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from kubelet import Grounds

from k8s.events import NOTE_LENGTH, Note, Subject, write_event
from k8s.resources import JOBS, NODES

pytestmark = pytest.mark.contract


def events_on(grounds: Grounds, namespace: str, uid: str) -> list[dict]:
    found = grounds.cluster.get(
        f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.uid={uid}"
    )
    return [one for one in found["items"] if one["reportingComponent"] == "pitwall.dev/worker"]


def test_an_event_on_a_node_names_what_was_done_and_is_found_by_the_nodes_uid(grounds):
    grounds.add_nodes(1)
    meta = grounds.cluster.node(grounds.nodes[0]).metadata
    about = Subject.of(NODES, meta.name, meta.uid)
    note = Note(about, "PitwallCordoned", "cordon", "n cordoned (drain op-1)", datetime.now(UTC))
    for _ in range(2):
        write_event(grounds.cluster.connection, note, component="pitwall.dev/worker", instance="w1")
    said = events_on(grounds, "default", meta.uid)
    assert [one["message"] for one in said] == ["n cordoned (drain op-1)"] * 2
    assert {(one["reason"], one["action"], one["type"]) for one in said} == {
        ("PitwallCordoned", "cordon", "Normal")
    }


def test_an_event_on_a_workload_is_in_its_namespace_and_too_long_a_text_is_cut(grounds):
    grounds.cluster.create_job(grounds.namespace, "train", suspend=True)
    uid = grounds.cluster.job(grounds.namespace, "train").metadata.uid
    about = Subject.of(JOBS, "train", uid, namespace=grounds.namespace)
    note = Note(about, "PitwallSuspended", "suspend", "x" * 3000, datetime.now(UTC), warning=True)
    write_event(grounds.cluster.connection, note, component="pitwall.dev/worker", instance="w1")
    (said,) = events_on(grounds, grounds.namespace, uid)
    assert said["type"] == "Warning"
    assert len(said["message"]) == NOTE_LENGTH
