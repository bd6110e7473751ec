"""Selectors, tolerations and affinity as Kubernetes reads them."""

from __future__ import annotations

import msgspec
import pytest

from k8s.objects import LabelSelector, Taint, Toleration
from k8s.selectors import node_affinity_holds, selects, tolerates, tolerates_cordon, untolerated
from tests.cluster_objects import make_node


def selector(**parts) -> LabelSelector:
    return msgspec.convert(parts, LabelSelector)


@pytest.mark.parametrize(
    ("wanted", "labels", "answer"),
    [
        (selector(), {}, True),
        (selector(matchLabels={"app": "a"}), {"app": "a", "x": "y"}, True),
        (selector(matchLabels={"app": "a"}), {"app": "b"}, False),
        (selector(matchExpressions=[{"key": "k", "operator": "In", "values": ["a"]}]), {}, False),
        (selector(matchExpressions=[{"key": "k", "operator": "NotIn", "values": ["a"]}]), {}, True),
        (selector(matchExpressions=[{"key": "k", "operator": "Exists"}]), {"k": ""}, True),
        (selector(matchExpressions=[{"key": "k", "operator": "DoesNotExist"}]), {"k": ""}, False),
    ],
)
def test_a_label_selector_selects(wanted, labels, answer):
    assert selects(wanted, labels) is answer


def test_no_selector_selects_nothing():
    assert not selects(None, {"app": "a"})


TAINT = Taint("gpu", "yes", "NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "answer"),
    [
        (Toleration(key="gpu", value="yes", effect="NoSchedule"), True),
        (Toleration(key="gpu", value="no"), False),
        (Toleration(key="gpu", operator="Exists"), True),
        (Toleration(operator="Exists"), True),
        (Toleration(key="gpu", operator="Exists", effect="NoExecute"), False),
        (Toleration(), False),
    ],
)
def test_a_toleration_covers_a_taint(toleration, answer):
    assert tolerates(toleration, TAINT) is answer


def test_a_preference_keeps_nobody_away():
    taints = [{"key": "k", "effect": "PreferNoSchedule"}]
    assert untolerated(make_node("a", taints=taints), ()) is None


def test_a_pod_that_tolerates_everything_tolerates_a_cordon():
    assert tolerates_cordon((Toleration(operator="Exists"),))
    assert not tolerates_cordon((Toleration(key="nvidia.com/gpu", operator="Exists"),))


def affinity(*terms):
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def test_node_affinity_terms_are_alternatives_and_their_parts_are_not():
    node = make_node("a", labels={"zone": "1", "generation": "9"})
    in_zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["1"]}]}
    elsewhere = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["2"]}]}
    newer = {"key": "generation", "operator": "Gt", "values": ["8"]}
    assert node_affinity_holds(None, node)
    assert node_affinity_holds(affinity(elsewhere, in_zone), node)
    assert not node_affinity_holds(affinity(elsewhere), node)
    assert node_affinity_holds(affinity({"matchExpressions": [newer]}), node)
    assert not node_affinity_holds(
        affinity({"matchExpressions": [newer, elsewhere["matchExpressions"][0]]}), node
    )
    assert not node_affinity_holds(affinity({}), node)
    name = {"key": "metadata.name", "operator": "In", "values": ["a"]}
    assert node_affinity_holds(affinity({"matchFields": [name]}), node)
