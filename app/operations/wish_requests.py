"""Previews, drains and reschedules as people ask for them, and a second person's yes. In the caller's transaction."""

from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import update

from app.errors import RequestRefused
from app.operations import admission, approval, ledger
from app.operations.bulk import name_nodes
from app.operations.case import Case, Outcome
from app.operations.counted import read_facts
from app.operations.model import Wish
from app.operations.wishes import Pace, read_parameters, read_wish
from app.store.reads.rows import table_of
from app.store.tables import Request

_request = table_of(Request)


def preview(case: Case) -> dict[str, Any]:
    """The plan of what is asked for, as of now. Raises RequestRefused when it makes no sense."""
    wish = _wish(case, case.parameters.action)
    return admission.plan_of(
        case.connection,
        case.cluster,
        wish,
        view=case.view,
        settings=case.settings,
        now=case.now,
    )


def take_wish(case: Case) -> Outcome:
    """Opens the operation, or lets the request wait for a second person. Raises RequestRefused."""
    wish, plan = _judged(case, case.request.kind)
    if approval.is_needed(plan, case.settings):
        if case.parameters.automatic:
            raise RequestRefused(
                f"It stops {plan['gpus_stopped']} GPUs, more than {case.settings.approval_gpus}: a person must "
                "ask for it, and a second one approve.",
                code="approval_needed",
            )
        said = approval.ask_for_approval(
            case.connection, case.request, plan, settings=case.settings, now=case.now
        )
        return Outcome(state=approval.AWAITING, message=said)
    return Outcome(_open(case, wish, plan))


def approve(case: Case) -> Outcome:
    """Opens what waited for approval, as its author asked for it. Raises RequestRefused, ApprovalVoid."""
    waiting = approval.read_awaiting(
        case.connection,
        case.cluster,
        case.parameters.request_id,
        by=case.request.author,
        plan_hash=case.parameters.plan_hash,
        now=case.now,
    )
    # The plan that its author had read is judged as the one that waited: the preview itself has expired.
    parameters = msgspec.structs.replace(read_parameters(waiting.parameters), plan_hash=None)
    asked = replace(case, request=waiting, parameters=parameters)
    wish = _wish(asked, waiting.kind)
    plan = admission.plan_of(
        case.connection, case.cluster, wish, view=case.view, settings=case.settings, now=case.now
    )
    # A limit's no is no void: it waits on, for a place to come free.
    admission.refuse_over_limits(plan)
    approval.hold_to_plan(waiting, plan)
    wish, plan = _judged(asked, waiting.kind)
    plan["approval"] = {"by": case.request.author, "at": case.now.isoformat()}
    operation_id = _open(asked, wish, plan)
    said = f"Approved by {case.request.author}."
    case.connection.execute(
        update(_request)
        .where(_request.c.id == waiting.id)
        .values(state="accepted", answered_at=case.now, operation_id=operation_id)
    )
    ledger.audit(
        case.connection,
        case.cluster,
        at=case.now,
        author=waiting.author,
        action=waiting.kind,
        target=", ".join(wish.nodes) or wish.options.job,
        target_uid=waiting.id,
        operation_id=operation_id,
        message=said,
    )
    return Outcome(operation_id, message=f"Plan {plan['hash']} approved.")


def _wish(case: Case, action: str) -> Wish:
    parameters = name_nodes(case.connection, case.cluster, case.parameters, view=case.view)
    health = {}
    if action == "reschedule":  # which of a job's nodes are Failing
        facts = read_facts(case.connection, case.cluster, ())
        health = {name: node.health for name, node in facts.items()}
    pace = Pace(case.settings.unit_spacing_seconds, case.settings.units_at_once)
    return read_wish(action, parameters, view=case.view, health=health, pace=pace)


def _judged(case: Case, action: str) -> tuple[Wish, dict[str, Any]]:
    wish = _wish(case, action)
    plan = admission.judge(
        case.connection,
        case.cluster,
        wish,
        parameters=case.parameters,
        view=case.view,
        settings=case.settings,
        now=case.now,
    )
    return wish, plan


def _open(case: Case, wish: Wish, plan: dict[str, Any]) -> str:
    return admission.open_planned(
        case.connection,
        case.cluster,
        wish,
        plan,
        request=case.request,
        view=case.view,
        now=case.now,
    )
