"""Answers of the eviction API, classified; those that a cluster gives at will are in tests/contract."""

from __future__ import annotations

import pytest

from k8s.errors import ApiError
from k8s.eviction import classify

EXHAUSTED = {
    "reason": "DisruptionBudget",
    "message": "The disruption budget llm-7b.train needs 4 healthy pods and has 4 currently",
}
UNOBSERVED = {
    "reason": "DisruptionBudget",
    "message": "The disruption budget llm-7b is still being processed by the server.",
}


def error(status: int, reason: str = "", message: str = "", **parts) -> ApiError:
    return ApiError(status, reason, message, **parts)


@pytest.mark.parametrize(
    ("answer", "kind", "after"),
    [
        (error(404, details={"name": "p", "kind": "pods"}), "gone", None),
        (error(404, message="could not find the requested resource"), "unsupported", None),
        (error(405), "unsupported", None),
        (error(403, message="cannot create pods/eviction"), "forbidden", None),
        (error(403, causes=({"reason": "NamespaceTerminating"},)), "namespace_terminating", 5),
        (error(409), "conflict", 1),
        (error(429, causes=(EXHAUSTED,)), "budget", 5),
        (error(429, causes=(UNOBSERVED,), retry_after_seconds=10), "budget_unobserved", 10),
        (error(429, retry_after_seconds=3), "throttled", 3),
        (
            error(500, message="This pod has more than one PodDisruptionBudget, which ..."),
            "multiple_budgets",
            None,
        ),
        (error(500, message="etcd has no leader"), "server_timeout", 5),
        (error(503), "server_timeout", 5),
        (error(504, retry_after_seconds=2), "server_timeout", 2),
    ],
)
def test_an_answer_has_one_meaning_and_a_time_to_ask_again(answer, kind, after):
    found = classify(answer)
    assert (found.kind, found.retry_after_seconds) == (kind, after)


def test_the_budget_is_named():
    assert classify(error(429, causes=(EXHAUSTED,))).budget == "llm-7b.train"
    assert classify(error(429, causes=(UNOBSERVED,))).budget == "llm-7b"


@pytest.mark.parametrize("status", [400, 401, 422])
def test_an_answer_that_no_row_covers_is_an_error(status):
    with pytest.raises(ApiError):
        classify(error(status))
