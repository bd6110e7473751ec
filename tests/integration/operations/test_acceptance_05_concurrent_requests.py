"""Acceptance 5: 50 concurrent drain requests for one node open one operation."""

from pathlib import Path
from threading import Barrier, Thread

from operation_world import CLUSTER, Driver, world_of

from app.store.reads.operations import operations
from app.store.requests import request


def test_acceptance_05_fifty_requests_for_one_node_make_one_operation(tmp_path: Path) -> None:
    with world_of(tmp_path) as world:
        node = next(iter(world.view().nodes))
        start = Barrier(10)
        asked: list[str] = []

        def ask(person: int) -> None:
            start.wait()
            for number in range(5):
                asked.append(world.ask("drain", author=f"p{person}-{number}", nodes=[node]))

        threads = [Thread(target=ask, args=(person,)) for person in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        driver = Driver(world)
        driver.lease.renew()
        while driver.desk.tick():
            pass
        answers = [request(world.engine, CLUSTER, each) for each in asked]
        accepted = [each for each in answers if each.state == "accepted"]
        assert len(asked) == 50
        assert len(accepted) == 1
        refused = [each for each in answers if each.state == "refused"]
        assert {each.refusal_code for each in refused} == {"conflict"}
        assert all(accepted[0].operation_id in each.refusal for each in refused)
        assert len(operations(world.engine, CLUSTER)) == 1
