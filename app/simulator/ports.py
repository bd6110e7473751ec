"""The InfiniBand ports of a simulated node: one a GPU, as in a DGX H100."""

from collections.abc import Mapping

from collectors.infiniband import GIGA
from collectors.readings import PortReading

PORTS = 8
RATE_BITS_PER_SECOND = 400 * GIGA
SICK_PORT = 0
"""The port that a node's ailments concern."""


def _port(number: int, *, down: bool = False, downed: int = 0) -> PortReading:
    return PortReading(
        device=f"mlx5_{number}",
        port=1,
        link_layer="InfiniBand",
        state="DOWN" if down else "ACTIVE",
        physical_state="Polling" if down else "LinkUp",
        rate_bits_per_second=RATE_BITS_PER_SECOND,
        link_downed_total=downed,
        symbol_errors_total=0,
        link_recoveries_total=0,
    )


WHOLE = tuple(_port(number) for number in range(PORTS))


def ports_of(ailments: Mapping[str, float], *, reading: int) -> tuple[PortReading, ...]:
    """What the node's ports say at the `reading`-th look; a flapping one changes at each."""
    if not any(name.startswith("port_") for name in ailments):
        return WHOLE
    down = "port_down" in ailments or ("port_flaps" in ailments and reading // 2 % 2 == 0)
    downed = 255 if "port_counter_full" in ailments else 0
    return (_port(SICK_PORT, down=down, downed=downed), *WHOLE[1:])
