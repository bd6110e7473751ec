"""Whose rights count, which a step needs, and what becomes of an operation whose author may not."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cluster_builders import NOW, job, node, operation, pod, view

from app.operations.access import Access, Need
from app.operations.accounts import acting_as
from app.operations.model import (
    CORDON,
    EVICT,
    FORCE_DELETE,
    OUT_OF_SERVICE,
    POWER_OFF,
    RESUME,
    SUSPEND,
    TAKE_OVER,
    UNCORDON,
    Act,
    Blocked,
    Choice,
    Memory,
    Step,
    Wait,
)
from app.operations.people import LocalUser, Person, people_of, person_of
from app.operations.request_rights import needs_of_request
from app.operations.rights import needs_of, review
from app.settings import Settings
from app.store.records import RequestRecord
from k8s.client import Response
from k8s.errors import UnreachableError

NOBODY = LocalUser()
CORDON_N1 = Step(CORDON, "Node/n1", "u1", node="n1")
EVICT_P = Step(EVICT, "Pod/train/p", "p1", node="n1")


@dataclass
class Reviewer:
    """An API server that answers SubjectAccessReviews by a list of who may what."""

    allowed: set[tuple[str, str, str]]  # username, verb, resource
    asked: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False

    def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Response:
        assert (method, path.rpartition("/")[2]) == ("POST", "subjectaccessreviews")
        self.asked.append(body["spec"])
        if self.down:
            raise UnreachableError("nobody answers")
        what = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
        may = (body["spec"]["user"], what["verb"], resource) in self.allowed
        named = (body["spec"]["user"], what["verb"], f"{resource} {what.get('name')}")
        status = {"allowed": may or named in self.allowed, "reason": "" if may else "no role"}
        return Response(201, {}, msgspec.json.encode({"status": status}))


def access_of(reviewer: Reviewer, *, clock: Any = lambda: 0.0, local: LocalUser = NOBODY) -> Access:
    return Access(reviewer, local=local, clock=clock)  # type: ignore[arg-type]


def test_a_proved_author_is_who_the_token_said() -> None:
    person = person_of("ada", ["ops"], LocalUser("somebody"))
    assert (person.username, person.groups) == ("ada", ("ops",))


def test_who_is_at_the_page_stands_for_the_local_user_else_for_their_name_alone() -> None:
    named = person_of("ada (page)", None, NOBODY)
    assert (named.username, named.groups) == ("ada", ("system:authenticated",))
    local = person_of("ada (page)", None, LocalUser("system:serviceaccount:pitwall:oncall"))
    assert local.username == "system:serviceaccount:pitwall:oncall"
    assert "system:serviceaccounts:pitwall" in local.groups
    assert local.said == "ada (page), who acts as system:serviceaccount:pitwall:oncall,"


def test_automatic_mode_is_an_account_of_its_own_whoever_the_local_user_is() -> None:
    account = Settings.model_fields["automatic_user"].default
    person = person_of(account, None, LocalUser("ada"))
    assert person.username == account
    assert "system:serviceaccounts" in person.groups


def test_each_step_is_reviewed_for_its_own_verb_and_resource() -> None:
    seen = view(job("llm"), pod("llm-0", "n1"))
    uid = next(iter(seen.workloads))
    assert needs_of(CORDON_N1, seen) == (Need("patch", "", "nodes", name="n1"),)
    assert needs_of(EVICT_P, seen) == (Need("create", "", "pods/eviction", "train"),)
    for name in (SUSPEND, RESUME):
        step = Step(name, "Job/team-a/llm", uid)
        assert needs_of(step, seen) == (Need("patch", "batch", "jobs", "team-a"),)
    delete = Step(FORCE_DELETE, "Pod/train/p", "p1", node="n1")
    assert needs_of(delete, seen) == (Need("delete", "", "pods", "train"),)
    taint = Step(OUT_OF_SERVICE, "Node/n1", "u1", node="n1")
    assert Need("delete", "", "pods") in needs_of(taint, seen)


def test_a_right_over_all_nodes_is_asked_about_once_and_one_over_a_single_node_by_its_name() -> (
    None
):
    reviewer = Reviewer({("ada", "patch", "nodes"), ("bob", "patch", "nodes n2")})
    access = access_of(reviewer)
    for name in ("n1", "n2", "n3"):
        assert access.may(Person("ada", "ada"), [Need("patch", "", "nodes", name=name)]).allowed
    assert len(reviewer.asked) == 1
    bob = Person("bob", "bob")
    assert access.may(bob, [Need("patch", "", "nodes", name="n2")]).allowed
    refused = access.may(bob, [Need("patch", "", "nodes", name="n1")])
    assert refused.allowed is False
    assert refused.message == "bob may not patch nodes n1 in the cluster (no role)."


def test_an_answer_counts_for_thirty_seconds_and_no_longer() -> None:
    reviewer, clock = Reviewer({("ada", "patch", "nodes")}), [0.0]
    access = access_of(reviewer, clock=lambda: clock[0])
    need, ada = Need("patch", "", "nodes"), Person("ada", "ada")
    assert access.may(ada, [need]).allowed
    reviewer.allowed.clear()
    clock[0] = 29.9
    assert access.may(ada, [need]).allowed
    clock[0] = 30.0
    assert access.may(ada, [need]).allowed is False


def test_what_can_not_be_asked_is_neither_yes_nor_no_and_is_asked_again() -> None:
    reviewer, clock = Reviewer({("ada", "patch", "nodes")}, down=True), [0.0]
    access = access_of(reviewer, clock=lambda: clock[0])
    need, ada = Need("patch", "", "nodes"), Person("ada", "ada")
    said = access.may(ada, [need])
    assert said.allowed is None
    assert "nobody answers" in said.message
    access.may(ada, [need])
    assert len(reviewer.asked) == 1  # an API server that is down is not asked for each step
    reviewer.down, clock[0] = False, 2.0
    assert access.may(ada, [need]).allowed


def test_a_refused_step_blocks_with_the_sentence_and_what_is_allowed_goes_on() -> None:
    work = operation("n1")
    act = Act((CORDON_N1, EVICT_P), "now", Memory())
    reviewer = Reviewer({("ada", "patch", "nodes")})
    reviewed = review(work, act, access=access_of(reviewer), view=view())
    assert isinstance(reviewed.decision, Act)
    assert reviewed.decision.steps == (CORDON_N1,)
    assert reviewed.people[(CORDON, "u1")].author == "ada"
    left = msgspec.structs.replace(act, steps=(EVICT_P,))
    blocked = review(work, left, access=access_of(reviewer), view=view()).decision
    assert isinstance(blocked, Blocked)
    assert blocked.message == (
        "ada may not create pods/eviction in namespace train in the cluster (no role)."
    )
    assert [offer.name for offer in blocked.choices] == [TAKE_OVER]


def test_a_review_that_can_not_be_asked_lets_the_operation_wait() -> None:
    act = Act((CORDON_N1,), "now", Memory())
    access = access_of(Reviewer(set(), down=True))
    decision = review(operation("n1"), act, access=access, view=view()).decision
    assert isinstance(decision, Wait)
    assert decision.held


def with_choices(*choices: Choice) -> Memory:
    return Memory(choices=choices)


def test_who_takes_an_operation_over_is_reviewed_and_named_from_then_on() -> None:
    memory = with_choices(Choice(TAKE_OVER, "", "bob", NOW, ("ops",)))
    work = operation("n1", memory=memory)
    assert [person.author for person in people_of(work, EVICT_P, NOBODY)] == ["bob", "ada"]
    access = access_of(Reviewer({("bob", "create", "pods/eviction")}))
    reviewed = review(work, Act((EVICT_P,), "now", memory), access=access, view=view())
    assert reviewed.people[(EVICT, "p1")] == Person("bob", "bob", ("ops",))


def test_what_is_taken_back_is_asked_for_by_who_cancelled_and_by_the_author() -> None:
    work = msgspec.structs.replace(
        operation("n1"), cancel_requested_by="bob", cancel_groups=("ops",)
    )
    step = Step(UNCORDON, "Node/n1", "u1", node="n1")
    assert [person.author for person in people_of(work, step, NOBODY)] == ["bob", "ada"]


def test_what_only_power_off_allows_is_asked_for_by_who_confirmed_that_node() -> None:
    memory = with_choices(
        Choice(POWER_OFF, "n1", "eve", NOW, ("breakers",)),
        Choice(POWER_OFF, "n2", "mallory", NOW + timedelta(seconds=1), ()),
    )
    work = operation("n1", memory=memory)
    step = Step(FORCE_DELETE, "Pod/train/p", "p1", node="n1")
    assert [person.author for person in people_of(work, step, NOBODY)] == ["eve"]
    unconfirmed = msgspec.structs.replace(step, node="n9")
    act = Act((unconfirmed,), "now", memory)
    access = access_of(Reviewer({("ada", "delete", "pods"), ("eve", "delete", "pods")}))
    assert isinstance(review(work, act, access=access, view=view()).decision, Blocked)


@pytest.mark.parametrize("impersonate", [False, True])
def test_power_off_is_written_by_its_own_account_and_the_rest_as_the_site_says(
    impersonate: bool,
) -> None:
    settings = Settings(_env_file=None, impersonate=impersonate)
    ada = Person("ada", "ada", ("ops", "system:authenticated"))
    who = acting_as(CORDON_N1, ada, settings)
    assert (who.user, who.groups) == ("ada", ("ops",)) if impersonate else who is None
    delete = acting_as(Step(FORCE_DELETE, "Pod/train/p", "p1"), ada, settings)
    assert (delete.user, delete.groups) == (settings.break_glass_user, ())


def asked(kind: str, **parameters: Any) -> RequestRecord:
    return RequestRecord(
        "r1", kind, parameters, "ada", "", "pending", NOW, None, {}, "", "", None, ["ops"]
    )


def test_a_request_is_reviewed_for_what_its_steps_will_need() -> None:
    seen = view(
        node("n1"),
        job("llm"),
        pod("llm-0", "n1"),
    )

    def needs(kind: str, **parameters: Any) -> list[str]:
        return [
            need.said for need in needs_of_request(asked(kind, **parameters), view=seen, now=NOW)
        ]

    assert needs("preview", action="drain", nodes=["n1"]) == ["list nodes"]
    assert needs("drain", nodes=["n1"]) == ["patch nodes", "patch jobs.batch in namespace team-a"]
    assert needs("reschedule", job="team-a/llm") == needs("drain", nodes=["n1"])
    assert needs("uncordon", nodes=["n1"]) == ["patch nodes"]
    assert needs("choose", choice=POWER_OFF) == ["patch nodes", "delete pods"]
