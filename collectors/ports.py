"""What InfiniBand ports did over time: since when one is down, how often it came back.

Only a port that was seen up can be down: machines have ports that nobody ever plugged in. What
is remembered is kept with the agent's memory, so that a restart forgets no flap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from collectors.readings import PortReading
from collectors.rules_port import MIN_DOWN_SECONDS

FLAP_WINDOW = timedelta(hours=12)
"""Returns older than this are no longer counted (judgement)."""

UP = "ACTIVE"
INFINIBAND = "InfiniBand"
GONE = "gone"
"""State of a port that was up before and whose device is there no more."""

MAX_RETURNS = 32

PORT_FIELDS: tuple[str, ...] = ("name", "is_down", "returns")
"""What rules may read beside a reading's own fields."""


class PortTrack(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A port that was seen up. `down_since` is None while it is; `returns` are times of coming
    back from at least MIN_DOWN_SECONDS of being down."""

    device: str
    port: int
    down_since: datetime | None = None
    returns: tuple[datetime, ...] = ()


Tracks = dict[str, PortTrack]
"""By "device-port"."""


def name_port(reading: PortReading) -> str:
    """Return "device-port", the key of a port on its node."""
    return f"{reading.device}-{reading.port}"


def follow_ports(
    tracks: Mapping[str, PortTrack], readings: Iterable[PortReading], *, now: datetime
) -> tuple[Tracks, dict[str, dict[str, Any]]]:
    """Return the tracks after these readings, and by port the row that rules read.

    Ports of Ethernet are told and not judged: which of them should be up nobody here knows.
    """
    kept: Tracks = {}
    rows: dict[str, dict[str, Any]] = {}
    for reading in readings:
        name = name_port(reading)
        row = rows[name] = {**msgspec.structs.asdict(reading), "name": name}
        track = tracks.get(name)
        if reading.link_layer != INFINIBAND or reading.state is None:
            row["is_down"] = row["returns"] = None
            if track is not None:
                kept[name] = track
            continue
        track = _step(track, reading, now=now)
        if track is not None:
            kept[name] = track
        row["is_down"] = None if track is None else track.down_since is not None
        row["returns"] = len(track.returns) if track else 0
    for name, track in tracks.items():
        if name not in rows:
            since = track.down_since or now
            kept[name] = msgspec.structs.replace(track, down_since=since)
            rows[name] = {
                "name": name,
                "device": track.device,
                "port": track.port,
                "state": GONE,
                "is_down": True,
                "returns": len(track.returns),
            }
    return kept, rows


def forgive_flaps(tracks: Mapping[str, PortTrack], names: Iterable[str]) -> Tracks:
    """Return the tracks without the returns of these ports: a person has seen to them."""
    seen = frozenset(names)
    return {
        name: msgspec.structs.replace(track, returns=()) if name in seen else track
        for name, track in tracks.items()
    }


def _step(track: PortTrack | None, reading: PortReading, *, now: datetime) -> PortTrack | None:
    up = reading.state == UP
    if track is None:
        return PortTrack(device=reading.device, port=reading.port) if up else None
    returns = tuple(at for at in track.returns if now - at < FLAP_WINDOW)
    if not up:
        # Never later than now, should the clock have been put back.
        since = min(track.down_since or now, now)
        return msgspec.structs.replace(track, down_since=since, returns=returns)
    if track.down_since is not None and now - track.down_since >= timedelta(
        seconds=MIN_DOWN_SECONDS
    ):
        returns = (*returns, now)[-MAX_RETURNS:]
    return msgspec.structs.replace(track, down_since=None, returns=returns)
