"""200 nodes fail at once: from the stored word to the cordon, the limits on (raised for the test)."""

from pathlib import Path

import pytest
from cordon_race import CordonRace, percentile
from fleet_processes import CLUSTER, fleet_of

from app.store.requests import request


@pytest.mark.parametrize(
    ("nodes", "failing", "together"),
    [
        (400, 60, False),
        pytest.param(1500, 200, True, marks=pytest.mark.acceptance),
        pytest.param(1500, 200, False, marks=pytest.mark.acceptance),
    ],
)
def test_nodes_that_fail_at_once_are_cordoned_in_seconds(
    nodes: int,
    failing: int,
    together: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """together: one word names all, as for an incident; else there is a word for each."""
    with fleet_of(tmp_path, nodes) as fleet:
        fleet.start_worker()
        with CordonRace(fleet) as race:
            names = fleet.node_names()
            race.ask(names[-1])  # until the worker has seen the cluster whole
            race.wait(60)
            race.asked_at.clear()
            if together:
                race.ask(*names[:failing])
            else:
                for name in names[:failing]:
                    race.ask(name)
            took = race.wait(60)
        states = {request(fleet.engine, CLUSTER, made).state for made in race.requests.values()}
        assert states == {"accepted"}
    words = "one word" if together else "a word each"
    with capsys.disabled():
        print(
            f"\n{failing} of {nodes} nodes at once, {words}, stored to cordoned: P50 "
            f"{percentile(took, 0.5):.2f} s, P99 {percentile(took, 0.99):.2f} s"
        )
    # Automatic mode gives one word for all. Two hundred words, a person's each, are answered one after the other.
    assert percentile(took, 0.99) < (2.0 if together or failing < 200 else 15.0)
