from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from k8s.listing import read_page
from k8s.objects import Node, Pod, controller_of, gpu_request, is_ready, parse_quantity
from tests.cluster_objects import make_node, make_pod


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("8", 8),
        (8, 8),
        ("500m", Decimal("0.5")),
        ("64Gi", 64 * 2**30),
        ("1k", 1000),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("100n", Decimal("1e-7")),
    ],
)
def test_a_quantity_is_read_in_base_units(text, amount):
    assert parse_quantity(text) == amount


@pytest.mark.parametrize("text", ["", "eight", "8 GPUs", "Gi", "1.2.3"])
def test_what_is_no_quantity_is_said_to_be_none(text):
    with pytest.raises(ValueError, match="is not a resource quantity"):
        parse_quantity(text)


def test_gpus_are_counted_as_the_scheduler_does():
    def container(gpus: int, **extra: str) -> dict[str, object]:
        return {"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}, **extra}

    pod = make_pod("a", gpus=4)
    assert gpu_request(pod) == 4
    larger_init = make_pod("a", gpus=4, initContainers=[container(6)])
    assert gpu_request(larger_init) == 6
    sidecar = make_pod("a", gpus=4, initContainers=[container(1, restartPolicy="Always")])
    assert gpu_request(sidecar) == 5
    both = make_pod(
        "a", gpus=4, initContainers=[container(1, restartPolicy="Always"), container(5)]
    )
    assert gpu_request(both) == 6


def test_a_node_that_does_not_answer_is_not_ready():
    assert is_ready(make_node("a"))
    assert not is_ready(make_node("a", ready="Unknown"))
    assert not is_ready(msgspec.json.decode(b'{"metadata":{"name":"a"}}', type=Node))


def test_only_the_controller_is_the_owner():
    pod = msgspec.json.decode(
        b"""{"metadata":{"ownerReferences":[
            {"apiVersion":"v1","kind":"Node","name":"n","uid":"1"},
            {"apiVersion":"batch/v1","kind":"Job","name":"j","uid":"2","controller":true}]}}""",
        type=Pod,
    )
    owner = controller_of(pod.metadata)
    assert owner is not None
    assert (owner.group, owner.kind, owner.uid) == ("batch", "Job", "2")
    assert controller_of(make_pod("a", owner=None).metadata) is None


def test_a_page_gives_what_can_be_read_and_names_what_can_not():
    body = b"""{"metadata":{"resourceVersion":"7","continue":"more"},"items":[
        {"metadata":{"name":"good","uid":"1"}},
        {"metadata":{"name":"bad","uid":"2"},"spec":{"unschedulable":3}},
        {"metadata":7}]}"""
    page, malformed = read_page(body, Node)
    assert [item.metadata.name for item in page.items or ()] == ["good"]
    assert [(entry.uid, entry.name) for entry in malformed] == [("2", "bad"), ("", "")]
    assert (page.metadata.resource_version, page.metadata.continue_) == ("7", "more")


def test_a_list_of_nothing_may_say_null():
    page, malformed = read_page(b'{"metadata":{"resourceVersion":"7"},"items":null}', Node)
    assert not page.items
    assert not malformed
