"""Acceptance 4: force never passes a limit; a typed confirmation apart from it does."""

from pathlib import Path

from operation_world import SHIPPED_LIMITS, Driver, world_of


def test_acceptance_04_force_passes_no_limit_and_its_typed_name_does(tmp_path: Path) -> None:
    with world_of(tmp_path, nodes=20, **SHIPPED_LIMITS) as world:
        names = sorted(world.view().nodes)
        driver = Driver(world)
        forced = world.answer(driver, "drain", nodes=names[:3], force=True, confirmation="stock")
        assert forced.refusal_code == "limit"
        assert not world.connection.tried
        over = world.answer(driver, "preview", action="drain", nodes=names[:3]).answer["limits"]
        named = [line["name"] for line in over["lines"] if line["after"] > line["limit"]]
        assert named
        other = world.answer(driver, "drain", nodes=names[:3], past_limits=["topology"])
        assert other.refusal_code == "limit"
        typed = world.answer(driver, "drain", nodes=names[:3], past_limits=named)
        assert typed.state == "accepted", typed.refusal
        kept = world.operation(typed.operation_id).plan["limits"]["lines"]
        assert {line["name"] for line in kept if line["passed"]} == set(named)
