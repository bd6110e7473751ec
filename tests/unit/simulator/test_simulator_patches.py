"""Patches change what they should and nothing else."""

import pytest

from app.simulator.api.failures import ApiFailure
from app.simulator.api.patches import (
    PatchMismatch,
    json_patch,
    merge_patch,
    strategic_merge_patch,
)


def test_a_merge_patch_removes_by_null_and_replaces_lists() -> None:
    document = {"a": 1, "b": {"c": 2, "d": 3}, "l": [1, 2]}
    patch = {"a": None, "b": {"c": 9}, "l": [3]}
    assert merge_patch(document, patch) == {"b": {"c": 9, "d": 3}, "l": [3]}
    assert document["l"] == [1, 2]


@pytest.mark.parametrize(
    ("field", "key"), [("containers", "name"), ("conditions", "type"), ("ownerReferences", "uid")]
)
def test_a_strategic_patch_merges_lists_by_their_key(field: str, key: str) -> None:
    document = {field: [{key: "a", "x": 1}, {key: "b", "x": 2}]}
    patch = {field: [{key: "b", "y": 3}, {key: "c", "x": 4}]}
    assert strategic_merge_patch(document, patch)[field] == [
        {key: "a", "x": 1},
        {key: "b", "x": 2, "y": 3},
        {key: "c", "x": 4},
    ]


@pytest.mark.parametrize("field", ["taints", "tolerations", "command"])
def test_a_strategic_patch_replaces_lists_without_a_key(field: str) -> None:
    document = {field: [{"key": "old"}]}
    assert strategic_merge_patch(document, {field: [{"key": "new"}]}) == {field: [{"key": "new"}]}


def test_a_strategic_patch_deletes_by_directive() -> None:
    document = {"containers": [{"name": "a"}, {"name": "b"}], "m": {"x": 1}}
    patch = {"containers": [{"name": "a", "$patch": "delete"}], "m": {"$patch": "replace", "y": 2}}
    assert strategic_merge_patch(document, patch) == {"containers": [{"name": "b"}], "m": {"y": 2}}


def test_a_strategic_patch_keeps_the_order_it_is_told() -> None:
    document = {"env": [{"name": "a"}, {"name": "b"}]}
    patch = {
        "env": [{"name": "c"}],
        "$setElementOrder/env": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
    }
    names = [one["name"] for one in strategic_merge_patch(document, patch)["env"]]
    assert names == ["c", "a", "b"]


def test_finalizers_are_merged_as_a_set_and_deleted_by_value() -> None:
    added = strategic_merge_patch({"finalizers": ["a"]}, {"finalizers": ["a", "b"]})
    assert added == {"finalizers": ["a", "b"]}
    taken = strategic_merge_patch(added, {"$deleteFromPrimitiveList/finalizers": ["a"]})
    assert taken == {"finalizers": ["b"]}


def test_ports_of_containers_and_of_services_have_different_keys() -> None:
    container = {"containers": [{"name": "a", "ports": [{"containerPort": 1, "x": 1}]}]}
    patch = {"containers": [{"name": "a", "ports": [{"containerPort": 1, "y": 2}]}]}
    patched = strategic_merge_patch(container, patch)
    assert patched["containers"][0]["ports"] == [{"containerPort": 1, "x": 1, "y": 2}]
    service = strategic_merge_patch(
        {"spec": {"ports": [{"port": 1, "x": 1}]}}, {"spec": {"ports": [{"port": 1, "y": 2}]}}
    )
    assert service["spec"]["ports"] == [{"port": 1, "x": 1, "y": 2}]


def test_a_json_patch_adds_replaces_removes_moves_and_copies() -> None:
    document = {"a": {"b": [1, 2]}, "x~y/z": 1}
    operations = [
        {"op": "add", "path": "/a/b/1", "value": 9},
        {"op": "add", "path": "/a/b/-", "value": 10},
        {"op": "replace", "path": "/a/b/0", "value": 0},
        {"op": "remove", "path": "/x~0y~1z"},
        {"op": "copy", "from": "/a/b", "path": "/c"},
        {"op": "move", "from": "/a", "path": "/d"},
        {"op": "test", "path": "/d/b/1", "value": 9},
    ]
    assert json_patch(document, operations) == {"c": [0, 9, 2, 10], "d": {"b": [0, 9, 2, 10]}}
    assert document == {"a": {"b": [1, 2]}, "x~y/z": 1}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "remove", "path": "/missing"},
        {"op": "replace", "path": "/missing", "value": 1},
        {"op": "add", "path": "/no/where", "value": 1},
        {"op": "add", "path": "/l/7", "value": 1},
    ],
)
def test_a_json_patch_that_does_not_fit_says_so(operation: dict) -> None:
    with pytest.raises(PatchMismatch):
        json_patch({"a": 1, "l": []}, [operation])


@pytest.mark.parametrize("operations", [{}, [{"op": "add"}], [{"op": "frob", "path": "/a"}]])
def test_a_malformed_json_patch_is_a_bad_request(operations: object) -> None:
    with pytest.raises(ApiFailure) as raised:
        json_patch({"a": 1}, operations)
    assert raised.value.code == 400
