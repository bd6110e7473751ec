"""Acceptance 2: the lower of a share and a number of GPU nodes an hour, through a restart inside the hour."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operation_world import ENDED, SHIPPED_LIMITS, Driver, World, world_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    wide = {"max_unavailable_nodes_ratio": 1.0, "max_unavailable_block_nodes_ratio": 1.0}
    with world_of(tmp_path, nodes=64, **{**SHIPPED_LIMITS, **wide}) as made:
        yield made


def test_acceptance_02_the_rate_survives_a_restart_and_ends_with_its_hour(world: World) -> None:
    names = sorted(world.view().nodes)
    first = Driver(world)
    for name in names[:2]:  # 2 % of 64, rounded up
        operation_id = world.drain(first, name, automatic=True)
        first.run_until(lambda wanted=operation_id: world.state(wanted) in ENDED)
    first.lease.give_back()
    world.offset_seconds = 1800
    second = Driver(world)  # another process: all it knows is in the store
    refused = world.answer(second, "drain", nodes=[names[2]], automatic=True)
    assert refused.refusal_code == "limit"
    assert "within the last hour" in refused.refusal
    person = world.answer(second, "drain", nodes=[names[2]])
    assert person.refusal_code == "limit"
    world.offset_seconds = 3700
    assert world.answer(second, "drain", nodes=[names[2]]).state == "accepted"
