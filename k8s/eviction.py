"""Evicting one pod, that very one, and saying what the API server's answer means.

The pod is read by name and compared by UID first; preconditions.uid holds the eviction to it. An answer
is classified by facts/drain-and-reschedule.md, rows 13 to 23. Nothing is retried here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from k8s.client import Connection
from k8s.errors import ApiError
from k8s.listing import get_object
from k8s.objects import Pod, PodDisruptionBudget, condition, is_terminating
from k8s.resources import BUDGETS, PODS

EvictionKind = Literal[
    "evicted",  # accepted (or its deletion had been accepted before: already=True)
    "gone",  # the pod exists no more
    "replaced",  # a pod of that name with another UID: not ours to touch
    "budget",  # a budget allows no disruption now; asking again later may do
    "budget_unobserved",  # the budget's status is not up to date: ask after retry_after_seconds
    "throttled",  # the API server sheds load: ask after retry_after_seconds
    "multiple_budgets",  # several budgets select the pod: eviction will never work
    "namespace_terminating",  # the namespace goes, and takes the pod with it
    "forbidden",  # we may not
    "conflict",  # the pod changed in that moment, and is still the same: ask again
    "server_timeout",  # the API server or its store passed over it (500, 502, 503, 504): ask again
    "unsupported",  # no eviction API: refused rather than deleting
]

_BUDGET_CAUSE = "DisruptionBudget"
_BUDGET_NAME = re.compile(r"disruption budget ([a-z0-9]([-a-z0-9.]*[a-z0-9])?)")
_UNOBSERVED = "still being processed"
_MULTIPLE = "more than one PodDisruptionBudget"
# kubectl's pause between evictions that a budget refused.
BUDGET_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class EvictionAnswer:
    """What became of an eviction. retry_after_seconds: when asking again makes sense, None if never."""

    kind: EvictionKind
    message: str
    budget: str | None = None
    retry_after_seconds: float | None = None
    already: bool = False

    @property
    def is_done(self) -> bool:
        """True when this pod's going needs nothing more from us."""
        return self.kind in ("evicted", "gone", "replaced")


def evict(
    connection: Connection,
    pod: Pod,
    *,
    grace_seconds: int | None = None,
    dry_run: bool = False,
) -> EvictionAnswer:
    """Evicts exactly this pod (by UID), with its own grace unless grace_seconds is given.

    Raises ApiError for answers that no row of the table covers (400, 401, 422), UnreachableError when
    there was no answer: the eviction may then have happened, and asking again is safe.
    """
    if (answer := _observe(connection, pod)) is not None:
        return answer
    name, namespace = pod.metadata.name, pod.metadata.namespace
    options: dict[str, Any] = {"preconditions": {"uid": pod.metadata.uid}}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    if dry_run:
        options["dryRun"] = ["All"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }
    path = PODS.path(name, namespace=namespace, subresource="eviction")
    try:
        connection.request("POST", path, body=body, dry_run=dry_run)
    except ApiError as error:
        if error.status == 409 and (after := _observe(connection, pod)) is not None:
            return after
        answer = classify(error)
        if answer.kind == "budget_unobserved" and answer.budget is not None:
            return _explain(connection, answer, answer.budget, namespace)
        return answer
    return EvictionAnswer("evicted", f"pod {namespace}/{name} is being evicted")


def sync_failure(budget: PodDisruptionBudget) -> str | None:
    """Why the budget can not be computed, and so refuses for ever; None where it can."""
    said = condition(budget.status.conditions, "DisruptionAllowed")
    if said is None or said.status != "False" or said.reason != "SyncFailed":
        return None
    name = f"{budget.metadata.namespace}/{budget.metadata.name}"
    return f"budget {name} can not be computed and refuses for ever: {said.message}"


def _observe(connection: Connection, pod: Pod) -> EvictionAnswer | None:
    """The answer that the pod's state gives by itself, None when it is there to be evicted."""
    name, namespace = pod.metadata.name, pod.metadata.namespace
    current: Pod | None = get_object(connection, PODS, name, namespace=namespace)
    if current is None:
        return EvictionAnswer("gone", f"pod {namespace}/{name} exists no more")
    if current.metadata.uid != pod.metadata.uid:
        return EvictionAnswer(
            "replaced", f"pod {namespace}/{name} is another one now ({current.metadata.uid})"
        )
    if is_terminating(current.metadata):
        return EvictionAnswer(
            "evicted", f"pod {namespace}/{name} is terminating already", already=True
        )
    return None


def _explain(
    connection: Connection, answer: EvictionAnswer, name: str, namespace: str
) -> EvictionAnswer:
    """Tells a budget that is late from one that can never be computed: both are "still being processed"."""
    budget: PodDisruptionBudget | None = get_object(connection, BUDGETS, name, namespace=namespace)
    why = sync_failure(budget) if budget is not None else None
    return answer if why is None else replace(answer, kind="budget", message=why)


def classify(error: ApiError) -> EvictionAnswer:
    """What an API server's refusal of an eviction means. Raises it again when no row covers it."""
    after = error.retry_after_seconds
    cause = next(
        (entry for entry in error.causes if entry.get("reason") == _BUDGET_CAUSE),
        None,
    )
    match error.status:
        case 404:
            # A missing eviction subresource is told without naming a pod.
            if error.details.get("name") or error.details.get("kind") == "pods":
                return EvictionAnswer("gone", error.message)
            return EvictionAnswer("unsupported", f"the API server has no evictions: {error}")
        case 405:
            return EvictionAnswer("unsupported", f"the API server has no evictions: {error}")
        case 403:
            if error.has_cause("NamespaceTerminating"):
                return EvictionAnswer(
                    "namespace_terminating",
                    error.message,
                    retry_after_seconds=BUDGET_RETRY_SECONDS,
                )
            return EvictionAnswer("forbidden", error.message)
        case 409:
            return EvictionAnswer("conflict", error.message, retry_after_seconds=after or 1.0)
        case 429 if cause is not None:
            said = cause.get("message", "")
            found = _BUDGET_NAME.search(said)
            unobserved = bool(after) or _UNOBSERVED in said
            return EvictionAnswer(
                "budget_unobserved" if unobserved else "budget",
                said or error.message,
                budget=found.group(1) if found else None,
                retry_after_seconds=after or BUDGET_RETRY_SECONDS,
            )
        case 429:
            return EvictionAnswer("throttled", error.message, retry_after_seconds=after or 1.0)
        case 500 if _MULTIPLE in error.message:
            return EvictionAnswer("multiple_budgets", error.message)
        case 500 | 502 | 503 | 504:
            return EvictionAnswer(
                "server_timeout", str(error), retry_after_seconds=after or BUDGET_RETRY_SECONDS
            )
    raise error
