"""Acceptance 3: a tripped limit still allows uncordon and looking; its reset needs a reason and is audited."""

from pathlib import Path

from operation_world import ENDED, SHIPPED_LIMITS, Driver, world_of

from app.store.reads.status import status


def test_acceptance_03_a_tripped_limit_allows_uncordon_and_looking_and_is_reset_with_a_reason(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path, nodes=8, **SHIPPED_LIMITS) as world:
        names = sorted(world.view().nodes)
        driver = Driver(world)
        drained = world.drain(driver, names[0], automatic=True)
        driver.run_until(lambda: world.state(drained) in ENDED)
        tripping = world.answer(driver, "drain", nodes=[names[1]], automatic=True)
        assert tripping.refusal_code == "limit"
        tripped = {mark.name for mark in status(world.engine, "test", world.clock()).limits}
        assert tripped
        world.offset_seconds = 7200  # a trip outlasts what tripped it
        looked = world.answer(driver, "preview", action="drain", nodes=[names[1]])
        assert looked.state == "answered"
        back = world.answer(driver, "uncordon", nodes=[names[0]])
        assert back.state == "accepted"
        driver.run_until(lambda: world.state(back.operation_id) in ENDED)
        world.wait(lambda view: not view.nodes[names[0]].spec.unschedulable)
        again = world.answer(driver, "drain", nodes=[names[1]], automatic=True)
        assert again.refusal_code == "limit"
        for name in sorted(tripped):
            asked = {"author": "bob", "limit": name}
            blank = world.answer(driver, "reset_limit", **asked, reason=" ")
            assert blank.refusal_code == "invalid"
            reset = world.answer(driver, "reset_limit", **asked, text="sensors were replaced")
            assert reset.state == "accepted", reset.refusal
        assert world.answer(driver, "drain", nodes=[names[1]], automatic=True).state == "accepted"
        kept = [
            (row.author, row.outcome)
            for row in world.audited()
            if row.action == "reset_limit" and "sensors were replaced" in row.message
        ]
        assert kept == [("bob", "done")] * len(tripped)
