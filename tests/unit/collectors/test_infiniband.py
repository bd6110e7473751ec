"""InfiniBand ports: from a real tree of files to findings, and what they did over time."""

from __future__ import annotations

import itertools
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collectors.desk import Desk, Identity
from collectors.errors import SourceError
from collectors.infiniband import read_ports
from collectors.memory import Memory, load_memory, save_memory
from collectors.ports import follow_ports
from collectors.readings import PortReading
from collectors.report import Finding
from tests.captures import RECORDED

EXCERPT = Path(__file__).parents[2] / "data/infiniband"
CAPTURE = RECORDED / "gpud/sys-class-infiniband-h100/sys-class-infiniband-h100.0"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("root", "infiniband"), [(EXCERPT, 2), (CAPTURE, 8)], ids=["excerpt", "capture"]
)
def test_ports_of_a_machine_are_read_with_their_rates(root: Path, infiniband: int) -> None:
    if not root.exists():
        pytest.skip(f"{root} is missing: the recorded ports cannot be read")
    ports = read_ports(root)
    fabric = [port for port in ports if port.link_layer == "InfiniBand"]
    others = [port for port in ports if port.link_layer != "InfiniBand"]
    assert len(fabric) == infiniband
    assert {(port.state, port.rate_bits_per_second) for port in fabric} == {
        ("ACTIVE", 400_000_000_000)
    }
    assert [(port.device, port.link_layer, port.rate_bits_per_second) for port in others] == [
        ("mlx5_bond_0", "Ethernet", 200_000_000_000)
    ]
    assert all(port.missing == {} for port in ports)
    desk = make_desk()
    desk.take_ports(ports, now=START)
    (finding,) = desk.ledger.findings
    assert (finding.rule, finding.severity) == ("infiniband-counter-full", "advice")
    assert "mlx5_1-1 has counted >= 255 flaps, rate unknown" in finding.message


def test_what_a_file_does_not_say_is_unknown_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "infiniband"
    shutil.copytree(EXCERPT, root)
    port = root / "mlx5_0/ports/1"
    (port / "state").write_text("")
    (port / "rate").write_bytes(b"\xff\x00 fast\n")
    (port / "counters/link_downed").write_text("-3\n")
    (port / "counters/symbol_error").unlink()
    reading = read_ports(root)[0]
    assert (reading.state, reading.rate_bits_per_second, reading.link_downed_total) == (
        None,
        None,
        None,
    )
    assert set(reading.missing) == {
        *("state", "rate_bits_per_second", "link_downed_total", "symbol_errors_total")
    }
    assert read_ports(tmp_path / "nothing") == []
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="PITWALL_INFINIBAND_ROOT"):
        read_ports(tmp_path / "file")


def make_desk(memory: Memory | None = None) -> Desk:
    numbers = itertools.count(1)
    return Desk(
        Identity("c", "n", "boot-1", "0.1"),
        memory or Memory(),
        push_interval_seconds=15,
        xid_window_seconds=5,
        find_pod=lambda pid: None,
        new_id=lambda: f"id-{next(numbers)}",
    )


class Cable:
    """A desk that reads one port each 15 s."""

    def __init__(self) -> None:
        self.desk = make_desk()
        self.now = START

    def read(self, state: str | None, *, seconds: float = 15, link: str = "InfiniBand") -> None:
        self.now += timedelta(seconds=seconds)
        ports = [PortReading(device="mlx5_0", port=1, link_layer=link, state=state)]
        self.desk.take_ports(ports if state != "no device" else [], now=self.now)

    @property
    def findings(self) -> list[Finding]:
        return self.desk.ledger.findings

    @property
    def rules(self) -> list[str]:
        return [finding.rule for finding in self.findings]


@pytest.mark.parametrize("state", ["DOWN", "INIT", "no device"])
def test_a_port_that_was_up_and_is_down_for_four_minutes_is_a_fault(state: str) -> None:
    cable = Cable()
    cable.read("ACTIVE")
    for _ in range(16):
        cable.read(state)
        assert cable.rules == []
    cable.read(state)
    (finding,) = cable.findings
    assert (finding.rule, finding.severity) == ("infiniband-port-down", "critical")
    assert "mlx5_0-1" in finding.message
    cable.read(None)
    assert cable.rules == ["infiniband-port-down"], "what is not known ends nothing"
    cable.read("ACTIVE")
    assert cable.rules == []


def test_a_port_that_was_never_up_and_one_of_ethernet_are_no_fault() -> None:
    cable = Cable()
    cable.read("DOWN")
    cable.read("DOWN", seconds=3600)
    assert cable.rules == []
    bond = Cable()
    bond.read("ACTIVE", link="Ethernet")
    bond.read("DOWN", link="Ethernet")
    bond.read("DOWN", link="Ethernet", seconds=3600)
    assert bond.rules == []


def test_three_returns_are_a_flapping_port_until_a_person_closes_it(tmp_path: Path) -> None:
    cable = Cable()
    cable.read("ACTIVE")
    for _ in range(3):
        assert cable.rules == []
        cable.read("DOWN")
        cable.read("ACTIVE", seconds=30)
    assert cable.rules == ["infiniband-port-flaps"]
    save_memory(tmp_path, cable.desk.memory)
    cable.desk = make_desk(load_memory(tmp_path))
    cable.read("ACTIVE", seconds=86_400)
    assert cable.rules == ["infiniband-port-flaps"], "over a restart and a quiet day"
    cable.desk.take_decision(closed_episodes=[cable.findings[0].episode])
    cable.read("ACTIVE")
    assert cable.rules == []


def test_a_blink_is_no_return_and_old_returns_are_forgotten() -> None:
    cable = Cable()
    cable.read("ACTIVE")
    for _ in range(10):
        cable.read("DOWN")
        cable.read("ACTIVE")
    assert cable.rules == []
    for _ in range(5):
        cable.read("DOWN")
        cable.read("ACTIVE", seconds=7 * 3600)
    assert cable.rules == []


def test_the_tracks_of_ports_hold_only_those_that_were_up() -> None:
    ports = [
        PortReading(device="a", port=1, link_layer="InfiniBand", state="DOWN"),
        PortReading(device="b", port=1, link_layer="InfiniBand", state="ACTIVE"),
    ]
    tracks, rows = follow_ports({}, ports, now=START)
    assert set(tracks) == {"b-1"}
    assert (rows["a-1"]["is_down"], rows["b-1"]["is_down"]) == (None, False)
