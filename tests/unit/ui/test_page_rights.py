"""Buttons follow what the worker heard; what nobody knows closes none."""

from datetime import UTC, datetime

import pytest

from app.store.records import PermissionRecord
from app.ui.rights import refusal_by

AT = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def fact(verb: str, resource: str, allowed: bool) -> PermissionRecord:
    return PermissionRecord(verb, resource, allowed, "", AT)


OPERATOR = [
    fact("patch", "nodes", True),
    fact("patch", "jobs.batch", True),
    fact("delete", "pods", False),
]


@pytest.mark.parametrize("kind", ["drain", "reschedule", "uncordon", "cancel", "choose"])
def test_who_may_patch_nodes_is_refused_nothing_of_an_operators(kind: str) -> None:
    assert refusal_by(OPERATOR, "ada", kind=kind) == ""
    refused = refusal_by([fact("patch", "nodes", False)], "ada", kind=kind)
    assert refused == "ada may not patch nodes in the cluster, which this needs."


def test_a_power_off_is_confirmed_only_by_who_may_delete_pods() -> None:
    refused = refusal_by(OPERATOR, "ada", kind="choose", choice="confirm_power_off")
    assert refused == "ada may not delete pods in the cluster, which this needs."
    assert refusal_by(OPERATOR, "ada", kind="choose", choice="retry") == ""


def test_what_nobody_knows_refuses_nothing() -> None:
    assert refusal_by([], "ada", kind="drain") == ""
