"""Planned absences in the store: begun, overdue, and kept through a restart."""

import msgspec
import pytest
from cluster_builders import NOW, node, pod
from sqlalchemy import Engine
from state_site import HOUR, Site, changed

from k8s.objects import Node as KubernetesNode


@pytest.fixture
def site(engine: Engine) -> Site:
    return Site(engine)


def test_an_empty_cordoned_node_is_planned_before_it_falls_silent_and_for_an_hour(
    site: Site,
) -> None:
    site.show(node("a", cordoned=True))
    site.wait(60)
    assert site.row().planned == "cordoned and empty: cordoned outside Pitwall"
    site.wait(3000)
    site.wait(HOUR - 1, heard=False)
    assert site.row().planned is not None
    site.wait(1, heard=False)
    assert site.row().planned is None
    assert "was to be over by" in site.node().service_reason
    site.restart()
    site.sync.tick()
    assert site.row().planned is None
    site.wait(10)
    assert site.row().planned is not None


def test_a_node_that_failed_first_and_was_cordoned_afterwards_is_not_away_on_purpose(
    site: Site,
) -> None:
    site.show(node("a"), pod("x", "a"))
    site.wait(10)
    assert site.row().planned is None
    site.wait(300, heard=False)
    site.show(node("a", cordoned=True))
    assert site.row().planned is None


def test_a_node_that_is_added_is_planned_until_its_first_report(site: Site) -> None:
    made = changed(node("a"), creation_timestamp=NOW)
    site.show(made)
    assert site.row().planned == "being added: created at 12:00:00 UTC, not heard yet"
    site.restart()
    site.show(made)
    assert site.row().planned is not None
    site.wait(5)
    assert site.row().planned is None


def test_a_planned_reason_ends_with_its_cause(site: Site) -> None:
    site.show(node("a", cordoned=True))
    assert site.row().planned is not None
    site.show(node("a"))
    assert (site.row().planned, site.row().planned_since) == (None, None)


def booted(made: KubernetesNode, boot_id: str) -> KubernetesNode:
    info = msgspec.structs.replace(made.status.node_info, boot_id=boot_id)
    return msgspec.structs.replace(
        made, status=msgspec.structs.replace(made.status, node_info=info)
    )


def test_a_cordoned_node_that_boots_anew_is_rebooting_for_ten_minutes(site: Site) -> None:
    busy = pod("x", "a")
    site.show(booted(node("a", cordoned=True), "one"), busy)
    site.wait(5)
    assert site.row().planned is None
    after = booted(node("a", cordoned=True), "two")
    site.show(after, busy)
    assert site.row().planned == "rebooting: booted at 12:00:05 UTC"
    site.restart()
    site.show(after, busy)
    site.wait(599)
    assert site.row().planned == "rebooting: booted at 12:00:05 UTC"
    site.wait(1)
    assert site.row().planned is None


def test_a_node_in_service_that_boots_anew_is_not_rebooting_on_purpose(site: Site) -> None:
    site.show(booted(node("a"), "one"))
    site.wait(5)
    site.show(booted(node("a"), "two"))
    assert site.row().planned is None


def test_a_node_under_repair_may_be_away_for_longer(site: Site) -> None:
    site.show(node("a", cordoned=True))
    site.wait(5)
    site.ask("repair", nodes=["a"], text="a fan")
    site.sync.tick()
    assert site.row().planned == "under repair: by ada"
    site.wait(24 * HOUR, heard=False)
    assert site.row().planned == "under repair: by ada"
