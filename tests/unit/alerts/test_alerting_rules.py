"""Each rule of what alerting must not get wrong, where it is decided; sending has its own in tests/integration/alerts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.alerts.config import parse_config
from app.alerts.grouping import Place, Turn, take_turn
from app.alerts.inhibition import inhibitors
from app.alerts.lifecycle import live
from app.alerts.message import check_templates, clean, compose
from app.alerts.model import (
    Alert,
    AlertFact,
    Group,
    deduplication_key,
    fingerprint,
    outgrown,
    parse_matcher,
)
from app.alerts.quiet_hours import is_quiet
from app.alerts.routing import escalations_of, root_timing, ways_of
from app.alerts.silences import ActiveSilence, silencers

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
RECEIVERS = """
[[receiver]]
name = "pager"
url_env = "PITWALL_ALERT_SECRET_PAGER"

[[receiver]]
name = "chat"
url_env = "PITWALL_ALERT_SECRET_CHAT"
"""
PAGER = parse_config(RECEIVERS + '[root]\nreceivers = ["pager"]\n')


def alert(name: str = "a", *, seconds: float = 0, severity: str = "fatal", **labels: str) -> Alert:
    said = {
        "alertname": "NodeIncident",
        "cluster": "c",
        "severity": severity,
        "node": name,
        **labels,
    }
    at = NOW - timedelta(seconds=seconds)
    return Alert(
        name, fingerprint(said), said, {"summary": f"{name} is ill"}, severity, "firing", at, at
    )


def fact(
    state: str = "firing", severity: str = "fatal", node: str = "n1", age: float = 10
) -> AlertFact:
    labels = {
        "alertname": "NodeIncident",
        "cluster": "c",
        "severity": severity,
        "node": node,
        "incident": "i1",
    }
    return AlertFact(
        labels,
        {"summary": "ill"},
        severity,
        NOW - timedelta(seconds=age),
        incident_id="i1",
        state=state,
    )  # type: ignore[arg-type]


def turned(
    alerts: list[Alert], groups: list[Group] | None = None, *, ended: Mapping[str, Alert] | None = None,
    now: datetime = NOW, config: object = PAGER, resolving: Mapping[str, bool] | None = None,
) -> Turn:  # fmt: skip
    places = [Place(one, way) for one in alerts for way in ways_of(one, config)]  # type: ignore[arg-type]
    return take_turn(
        places, groups or [], ended=ended or {}, resolving=resolving or {"pager": True, "chat": True},
        default=root_timing(PAGER), now=now,
    )  # fmt: skip


# Identity is the label set. Values, times and attempt numbers are annotations, never labels.


def test_identity_is_the_label_set_and_severity_may_rise_within_it() -> None:
    first = live([fact(severity="critical")], [], now=NOW).open[0]
    risen = live([fact(severity="fatal")], [first], now=NOW + timedelta(seconds=60)).open[0]
    assert (risen.id, risen.fingerprint) == (first.id, first.fingerprint)
    assert risen.labels["severity"] == "fatal"
    assert [one["severity"] for one in outgrown(risen.labels, risen.annotations)] == ["critical"]
    fallen = live([fact(severity="warning")], [risen], now=NOW + timedelta(seconds=90)).open[0]
    assert fallen.severity == "fatal", "within an episode it only rises"
    assert fingerprint({"a": "1", "severity": "x"}) == fingerprint({"severity": "y", "a": "1"})
    assert fingerprint({"a": "1"}) != fingerprint({"a": "2"})


# Order: inhibit, time-mute, silence, dedupe against a notification log.


def test_what_was_told_is_not_told_again_before_its_time() -> None:
    sick = alert(seconds=60)
    first = turned([sick])
    assert [one.event for one in first.notices] == ["trigger"]
    again = turned([sick], first.groups, now=NOW + timedelta(seconds=400))
    assert again.notices == []


@pytest.mark.parametrize("muted", [{"silenced_by": ("s1",)}, {"inhibited_by": "f"}])
def test_what_is_muted_is_not_told_and_its_end_is_if_it_was(muted: dict) -> None:
    sick = alert(seconds=60)
    assert turned([replace(sick, **muted)]).notices == []
    told = turned([sick])
    over = replace(sick, state="resolved", ended_at=NOW, **muted)
    ended = turned([], told.groups, ended={sick.id: over}, now=NOW + timedelta(seconds=301))
    assert [one.event for one in ended.notices] == ["resolve"]


# Timers people know: group_wait 30 s, group_interval 5 m, repeat 4 h.


def test_timers_are_those_that_people_know() -> None:
    timing = root_timing(PAGER)
    assert (timing.wait_seconds, timing.interval_seconds, timing.repeat_seconds) == (
        30,
        300,
        14_400,
    )
    assert turned([alert(seconds=5)]).notices == []
    assert len(turned([alert(seconds=31)]).notices) == 1


def test_a_group_that_grows_is_told_after_its_interval_and_once_for_all() -> None:
    first = turned([alert("n1", seconds=60)])
    more = [alert("n1", seconds=60), alert("n2"), alert("n3")]
    assert turned(more, first.groups, now=NOW + timedelta(seconds=200)).notices == []
    (notice,) = turned(more, first.groups, now=NOW + timedelta(seconds=301)).notices
    assert {one.id for one in notice.firing} == {"n1", "n2", "n3"}


# Inhibit: rack or switch down mutes its nodes; node down mutes its GPUs; draining mutes the NotReady it expects.


def test_a_rack_that_is_down_mutes_what_its_nodes_lose_by_that_and_nothing_else() -> None:
    rack = alert("r", scope="rack", subject="r1", rule="infiniband-port-down", rack="r1")
    silent = alert("n1", scope="node", rule="silent", rack="r1")
    broken = alert("n2", scope="node", rule="xid-79", rack="r1")
    elsewhere = alert("n3", scope="node", rule="silent", rack="r2")
    found = inhibitors([rack, silent, broken, elsewhere], {})
    assert found == {"n1": rack.fingerprint}


def test_a_node_that_is_down_mutes_its_gpus() -> None:
    node = alert("n1", scope="node", rule="silent")
    gpu = replace(alert("g1", scope="job", gpu_uuid="GPU-1"), labels={**alert("g1", scope="job", gpu_uuid="GPU-1").labels, "node": "n1"})  # fmt: skip
    other = alert("n2", scope="node", rule="xid-79", gpu_uuid="GPU-2")
    assert inhibitors([node, gpu, other], {}) == {"g1": node.fingerprint}


def test_a_drain_mutes_the_not_ready_that_it_expects() -> None:
    drain = replace(
        alert("op"), labels={"alertname": "OperationStarted", "cluster": "c", "operation": "o1"}
    )
    expected = alert("n1", scope="node", rule="node-not-ready")
    other = alert("n2", scope="node", rule="node-not-ready")
    assert inhibitors([drain, expected, other], {"op": ("n1",)}) == {"n1": drain.fingerprint}


def test_of_two_that_would_mute_each_other_one_is_told() -> None:
    config = parse_config(
        "[[inhibit]]\nsource = ['node=\"a\"']\ntarget = ['node=\"b\"']\n[[inhibit]]\nsource = ['node=\"b\"']\ntarget = ['node=\"a\"']\n"
    )
    assert len(inhibitors([alert("a"), alert("b")], {}, config.inhibit)) == 1


# Resolved goes only to the channels that got the firing. No data is not resolved: it is unknown.


def test_resolved_goes_only_to_who_got_the_firing() -> None:
    told = turned([alert(seconds=60)])
    over = replace(alert(seconds=60), state="resolved", ended_at=NOW)
    ended = turned([], told.groups, ended={over.id: over}, now=NOW + timedelta(seconds=301))
    assert [(one.group.receiver, one.event) for one in ended.notices] == [("pager", "resolve")]
    assert turned([], [], ended={over.id: over}).notices == []


def test_a_receiver_that_wants_no_ends_is_told_none() -> None:
    told = turned([alert(seconds=60)])
    over = replace(alert(seconds=60), state="resolved", ended_at=NOW)
    ended = turned(
        [],
        told.groups,
        ended={over.id: over},
        now=NOW + timedelta(seconds=301),
        resolving={"pager": False},
    )
    assert ended.notices == []


def test_what_no_fact_speaks_of_any_more_is_unknown_and_not_over() -> None:
    first = live([fact()], [], now=NOW).open[0]
    (gone,) = live([], [first], now=NOW + timedelta(hours=1)).open
    assert gone.state == "unknown"
    assert gone.ended_at is None


# Flapping: nobody downstream damps it, so keep-firing belongs here.


def test_what_flaps_within_a_minute_stays_open() -> None:
    first = live([fact()], [], now=NOW).open[0]
    clear = live([fact("resolved")], [first], now=NOW + timedelta(seconds=10)).open[0]
    back = live([fact()], [clear], now=NOW + timedelta(seconds=30)).open[0]
    assert back.id == first.id
    clear = live([fact("resolved")], [back], now=NOW + timedelta(seconds=40)).open[0]
    over = live([fact("resolved")], [clear], now=NOW + timedelta(seconds=101))
    assert [one.id for one in over.ended] == [first.id]


# Silences expire, and what they hide stays visible.


def test_silences_expire_by_themselves_and_one_without_matchers_hides_nothing() -> None:
    matcher = (parse_matcher('node=~"n1|n2"'),)
    silence = ActiveSilence("s1", matcher, NOW, NOW + timedelta(hours=1))
    labels = alert("n1").labels
    assert silencers(labels, [silence], NOW + timedelta(minutes=59)) == ("s1",)
    assert silencers(labels, [silence], NOW + timedelta(hours=1)) == ()
    assert silencers(labels, [replace(silence, ended_by="ana")], NOW) == ()
    assert silencers(labels, [replace(silence, matchers=())], NOW) == ()
    assert silencers(alert("n11").labels, [silence], NOW) == (), "a regex matches the whole value"


# A dead man's switch: an always-firing Watchdog to an outside receiver.


def test_the_watchdog_goes_only_where_a_route_names_it() -> None:
    dog = replace(alert(), labels={"alertname": "Watchdog", "cluster": "c", "severity": "info"})
    assert ways_of(dog, PAGER) == ()
    named = parse_config(
        RECEIVERS + '[[route]]\nmatch = [\'alertname="Watchdog"\']\nreceivers = ["chat"]\n'
    )
    assert [way.receiver for way in ways_of(dog, named)] == ["chat"]


# PagerDuty: one stable dedup key (<= 255 characters) over trigger, acknowledge, resolve.


def test_a_key_is_stable_short_and_of_one_receiver_and_group() -> None:
    key = deduplication_key("c" * 300, "r" * 300, "g" * 5000)
    assert len(key) <= 255
    assert key == deduplication_key("c" * 300, "r" * 300, "g" * 5000)
    assert len({deduplication_key("c", r, g) for r in ("a", "b") for g in ("x", "y")}) == 4


def test_an_acknowledgement_is_told_once_all_of_a_group_is_taken_up() -> None:
    told = turned([alert("n1", seconds=60), alert("n2", seconds=60)])
    taken = [
        replace(alert("n1", seconds=60), acknowledged_at=NOW, acknowledged_by="ana"),
        alert("n2", seconds=60),
    ]
    assert turned(taken, told.groups, now=NOW + timedelta(seconds=5)).notices == []
    taken[1] = replace(taken[1], acknowledged_at=NOW, acknowledged_by="ana")
    assert [
        n.event for n in turned(taken, told.groups, now=NOW + timedelta(seconds=6)).notices
    ] == ["acknowledge"]


# Routes, quiet hours, escalation.


def test_the_first_route_that_matches_has_it_unless_it_goes_on() -> None:
    routes = '[[route]]\nmatch = [\'team="vision"\']\nreceivers = ["chat"]\ncontinue = {on}\n[[route]]\nmatch = [\'severity="fatal"\']\nreceivers = ["pager"]\n'
    mine = alert(team="vision")
    stops = parse_config(RECEIVERS + routes.format(on="false"))
    goes_on = parse_config(RECEIVERS + routes.format(on="true"))
    assert [way.receiver for way in ways_of(mine, stops)] == ["chat"]
    assert [way.receiver for way in ways_of(mine, goes_on)] == ["chat", "pager"]
    assert [way.receiver for way in ways_of(alert(severity="info"), stops)] == ["pager", "chat"], "what no route takes goes to all"  # fmt: skip


def test_a_receiver_that_can_not_be_reached_is_not_told_so_over_itself() -> None:
    dead = replace(alert(), labels={"alertname": "DeliveriesDead", "cluster": "c", "severity": "critical", "receiver": "pager"})  # fmt: skip
    assert [way.receiver for way in ways_of(dead, parse_config(RECEIVERS))] == ["chat"]


@pytest.mark.parametrize(
    ("at", "quiet"),
    [("2026-03-02T22:30:00+00:00", True), ("2026-03-03T06:59:00+00:00", True), ("2026-03-03T07:00:00+00:00", False),
     ("2026-03-07T23:00:00+00:00", False), ("2026-03-07T03:00:00+00:00", True), ("2026-03-08T03:00:00+00:00", False)],
)  # fmt: skip
def test_quiet_hours_over_midnight_belong_to_the_day_they_begin_on(at: str, quiet: bool) -> None:
    text = '[[quiet_hours]]\nname = "n"\nstart = "22:00"\nend = "07:00"\ndays = ["mon", "tue", "wed", "thu", "fri"]\n'
    (hours,) = parse_config(text).quiet_hours
    assert is_quiet(hours, datetime.fromisoformat(at)) is quiet


def test_what_nobody_took_up_goes_further_and_what_somebody_did_does_not() -> None:
    config = parse_config(
        RECEIVERS + '[[escalation]]\nname = "lead"\nreceivers = ["chat"]\nafter_seconds = 600\n'
    )
    told = NOW - timedelta(seconds=601)
    assert [way.receiver for way in escalations_of(alert(), config, told_at=told, now=NOW)] == [
        "chat"
    ]
    assert escalations_of(alert(), config, told_at=NOW, now=NOW) == ()
    assert escalations_of(alert(), config, told_at=None, now=NOW) == ()
    assert (
        escalations_of(replace(alert(), acknowledged_at=NOW), config, told_at=told, now=NOW) == ()
    )
    assert escalations_of(alert(severity="warning"), config, told_at=told, now=NOW) == ()


# The message.


def test_a_message_is_one_lines_of_plain_text_with_nothing_hidden_in_it() -> None:
    evil = "n1\u202e\x1b[31m\r\nFrom: boss <script>"
    assert clean(evil) == "n1[31m From: boss <script>"
    (notice,) = turned([replace(alert(seconds=60), annotations={"summary": evil * 40})]).notices
    said = compose(notice, cluster="c", page_url="http://p", templates=PAGER.templates)
    assert len(said["title"]) <= 100
    assert "\x1b" not in said["body"]
    assert "\n" not in said["title"]


def test_a_sites_templates_are_used_and_checked_at_the_start() -> None:
    good = parse_config(
        "[templates]\ntitle = \"{{ alerts[0].summary if alerts else 'over' }}!\"\n"
    ).templates
    check_templates(good, cluster="c", page_url="http://p")
    (notice,) = turned([alert(seconds=60)]).notices
    assert compose(notice, cluster="c", page_url="http://p", templates=good)["title"] == "a is ill!"
    for bad in (
        "{{ nothing }}",
        "{% if %}",
        "{{ alerts[0].summary }}",
        "{{ ().__class__.__bases__ }}",
    ):
        templates = parse_config(f"[templates]\nbody = '''{bad}'''\n").templates
        with pytest.raises(ValueError, match=r"templates\.body"):
            check_templates(templates, cluster="c", page_url="http://p")


def test_a_template_that_a_notice_does_not_fit_holds_up_no_alert() -> None:
    templates = parse_config("[templates]\ntitle = '{{ alerts[0].labels.nowhere }}'\n").templates
    (notice,) = turned([alert(seconds=60)]).notices
    message = compose(notice, cluster="c", page_url="http://p", templates=templates)
    assert message["title"].endswith("a is ill")
    with pytest.raises(ValueError, match="nowhere"):
        compose(notice, cluster="c", page_url="http://p", templates=templates, strict=True)
