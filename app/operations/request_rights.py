"""At the request: may its author have done what it asks for. What a step needs is reviewed again before it.

A bulk drain that names no nodes (a rack, an incident) is reviewed for its nodes here, and for pods and
jobs before its steps.
"""

from datetime import datetime

from app.errors import RequestRefused
from app.operations.access import Access, Need, Verdict
from app.operations.model import EVICT, POWER_OFF, SUSPEND, Options, Step
from app.operations.people import person_of
from app.operations.rights import GIVE_UP_PODS, needs_of
from app.operations.survey import Surveyed, pods_on, survey
from app.store.records import RequestRecord
from k8s.view import ClusterView

LOOK = Need("list", "", "nodes")
CHANGE = Need("patch", "", "nodes")
"""What /v1 asks about a person too, before it takes a request (app.ingest.api)."""

DIAGNOSE = Need("create", "batch", "jobs")
"""A diagnostic is a Job; its namespace is the site's."""


def may_ask(request: RequestRecord, *, access: Access, view: ClusterView, now: datetime) -> Verdict:
    """Whether the request's author may have that done; asks the API server where nothing is known."""
    person = person_of(request.author, request.author_groups, access.local)
    return access.may(person, needs_of_request(request, view=view, now=now))


def refuse_unless(verdict: Verdict) -> None:
    """Raises RequestRefused: forbidden for a no, unavailable where nobody could say."""
    if verdict.allowed is None:
        raise RequestRefused(verdict.message, code="unavailable")
    if not verdict.allowed:
        raise RequestRefused(verdict.message, code="forbidden")


def needs_of_request(
    request: RequestRecord, *, view: ClusterView, now: datetime
) -> tuple[Need, ...]:
    """The rights that it takes to have this done, each once."""
    parameters = request.parameters
    match request.kind:
        case "preview":
            return (LOOK,)
        case "choose" if parameters.get("choice") == POWER_OFF:
            return (CHANGE, GIVE_UP_PODS)
        case "drain":
            named = parameters.get("nodes")
            names = [str(name) for name in named] if isinstance(named, list) else []
            found = survey(pods_on(names, view), view=view, options=Options(), now=now)
            return tuple(dict.fromkeys((CHANGE, *_needs_of_pods(found, view))))
        case "diagnose":
            return (CHANGE, DIAGNOSE)
        case "repair_note":
            return (LOOK,)
        case "reschedule":
            return tuple(
                dict.fromkeys((CHANGE, *_needs_of_job(str(parameters.get("job")), view, now)))
            )
    return (CHANGE,)


def _needs_of_job(job: str, view: ClusterView, now: datetime) -> list[Need]:
    workload = next(
        (
            found
            for found in view.workloads.values()
            if job in (found.uid, f"{found.namespace}/{found.name}")
        ),
        None,
    )
    if workload is None:
        return []
    pods = list(view.pods_of(workload.uid))
    return _needs_of_pods(survey(pods, view=view, options=Options(), now=now), view)


def _needs_of_pods(surveyed: list[Surveyed], view: ClusterView) -> list[Need]:
    """Of the calls that move these pods; of those that stay or are refused anyway, nothing."""
    needs: dict[Need, None] = {}
    for found in surveyed:
        if found.way == "evict":
            step = Step(EVICT, f"Pod/{found.name}", found.uid)
        elif found.way == "restart" and found.workload is not None:
            workload = found.workload
            step = Step(
                SUSPEND, f"{workload.kind}/{workload.namespace}/{workload.name}", workload.uid
            )
        else:
            continue
        needs.update(dict.fromkeys(needs_of(step, view)))
    return list(needs)
