"""Acceptance 11: jobs, ranks, GPU-hours and room are told before; Drained and Returned are two verdicts after."""

from pathlib import Path

from operation_world import ENDED, Driver, world_of


def test_acceptance_11_the_plan_tells_whom_it_hurts_and_the_end_waits_for_their_return(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path, nodes=3) as world:
        uid = world.create_job("llm", ranks=2)
        ranks = world.wait(world.running(uid, 2))
        filler = world.create_job("filler", ranks=1)  # the third node is full too
        (filling,) = world.wait(world.running(filler, 1))
        node = ranks[0].spec.node_name
        driver = Driver(world)
        refused = world.answer(driver, "drain", nodes=[node])
        assert refused.refusal_code == "capacity"
        world.offset_seconds = 3600
        plan = world.answer(driver, "preview", action="drain", nodes=[node]).answer
        (told,) = plan["jobs"]
        assert (told["namespace"], told["name"], told["gang"]) == ("default", "llm", True)
        assert told["ranks_moved"] == [0] or told["ranks_moved"] == [1]
        assert (told["wanted_pods"], told["gpus"]) == (2, 16)
        assert (
            told["gpu_hours_at_stake"] == 8.0
        )  # 16 GPUs; half an hour where no checkpoint is told
        assert told["fit"]["verdict"] == "does_not_fit"
        assert "8 are free" in told["fit"]["reason"] or "free on nodes" in told["fit"]["reason"]
        operation_id = world.drain(driver, node, accept_no_capacity=["llm"])
        driver.run_until(lambda: world.operation(operation_id).nodes_state == {node: "Drained"})
        driver.run_until(
            lambda: (
                world.operation(operation_id).workloads_state[uid]["verdict"]
                == "Waiting for capacity"
            )
        )
        for _ in range(5):
            driver.turn()
        waiting = world.operation(operation_id)
        assert waiting.nodes_state == {node: "Drained"}
        assert waiting.state not in ENDED
        assert "finds no node" in waiting.workloads_state[uid]["message"]
        # Room comes: the filler ends.
        world.people.request(
            "PATCH",
            f"/api/v1/namespaces/default/pods/{filling.metadata.name}/status",
            body={"status": {"phase": "Succeeded"}},
        )
        driver.run_until(lambda: world.state(operation_id) in ENDED)
        ended = world.operation(operation_id)
        assert ended.state == "Succeeded", world.describe()
        assert ended.workloads_state[uid]["verdict"] == "Returned"
        after = world.view().pods_of(uid)
        assert node not in {pod.spec.node_name for pod in after}


def test_acceptance_11_a_job_that_is_removed_or_finished_meanwhile_ends_the_wait(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path, nodes=2) as world:
        uid = world.create_job("llm", ranks=2)
        node = world.wait(world.running(uid, 2))[0].spec.node_name
        driver = Driver(world)
        operation_id = world.drain(driver, node, accept_no_capacity=["llm"])
        driver.run_until(lambda: world.operation(operation_id).nodes_state == {node: "Drained"})
        assert world.state(operation_id) not in ENDED
        world.people.request("DELETE", "/apis/batch/v1/namespaces/default/jobs/llm")
        driver.run_until(lambda: world.state(operation_id) in ENDED)
        ended = world.operation(operation_id)
        assert ended.state == "Succeeded"
        assert ended.workloads_state[uid]["verdict"] == "Removed"
