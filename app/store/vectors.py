"""How the fleet's frames are packed: one byte a node or a GPU slot, compressed.

node_state has one byte a node in the topology's order: health code | service code << 2. gpu_state and
the metrics have `slots` bytes a node, a GPU's index its slot: gpu_state is health code | allocated << 2, a
metric is value / scale rounded, 0 to 254. 255 is no such GPU, in a metric also an unknown value.
"""

import zlib

import msgspec
import numpy
from numpy.typing import NDArray

from app.store.records import Topology

HEALTH_CODES = {"Healthy": 0, "Degraded": 1, "Failing": 2, "Unknown": 3}
SERVICE_CODES = {
    "In service": 0,
    "Cordoned": 1,
    "Draining": 2,
    "Drained": 3,
    "Under repair": 4,
    "Probation": 5,
}
HEALTHS = tuple(HEALTH_CODES)
SERVICES = tuple(SERVICE_CODES)
ABSENT = 255

STATE_ENCODING = "uint8+zlib"
TOPOLOGY_ENCODING = "json+zlib"

SCALES = {
    # An H100 shuts down at about 95 C and draws 700 W (facts/gpu-health.md): 127 C and 1,016 W hold both.
    "temperature_celsius": 0.5,
    "power_watts": 4.0,
    "gpu_utilization_ratio": 1 / 254,
}
"""Unit of one step of each metric that has a frame."""

LEAST_SLOTS = 8
"""GPUs of an HGX H100 node."""

MOST_SLOTS = 32
"""A GPU with a greater index has no place on the map; the largest known node has 16."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Topology)


def metric_encoding(metric: str) -> str:
    """Encoding of a metric's frame, its scale in it: `uint8+zlib;scale=4.0`."""
    return f"{STATE_ENCODING};scale={SCALES[metric]!r}"


def scale_of(encoding: str) -> float | None:
    """The scale that an encoding names, None for states."""
    _, _, scale = encoding.partition(";scale=")
    return float(scale) if scale else None


def quantize(values: NDArray[numpy.float64], metric: str) -> NDArray[numpy.uint8]:
    """Values of a metric (NaN is unknown) as bytes of its frame."""
    steps = numpy.clip(numpy.rint(values / SCALES[metric]), 0, ABSENT - 1)
    return numpy.where(numpy.isnan(values), ABSENT, numpy.nan_to_num(steps)).astype(numpy.uint8)


def values_of(data: bytes, encoding: str) -> NDArray[numpy.float64]:
    """A metric's frame as values, NaN where unknown."""
    codes = unpack(data)
    values = codes.astype(numpy.float64) * (scale_of(encoding) or 1.0)
    values[codes == ABSENT] = numpy.nan
    return values


def node_values(
    codes: NDArray[numpy.uint8], *, slots: int, scale: float, highest: bool
) -> NDArray[numpy.float64]:
    """A metric's frame as one value a node: the highest of its GPUs or their mean, NaN where none is known."""
    by_node = codes.reshape(-1, slots)
    known = by_node != ABSENT
    count = known.sum(axis=1)
    if highest:
        values = numpy.where(known, by_node, 0).max(axis=1, initial=0).astype(numpy.float64)
    else:
        values = numpy.where(known, by_node, 0).sum(axis=1) / numpy.maximum(count, 1)
    values *= scale
    values[count == 0] = numpy.nan
    return values


def pack(codes: NDArray[numpy.uint8]) -> bytes:
    """Bytes of a frame, compressed."""
    # Level 1: a frame of 350,000 GPUs costs 3 ms and the page's own budget is met with it.
    return zlib.compress(codes.tobytes(), 1)


def unpack(data: bytes) -> NDArray[numpy.uint8]:
    """The codes of a frame; a copy that may be changed."""
    return numpy.frombuffer(bytearray(zlib.decompress(data)), dtype=numpy.uint8)


def encode_topology(topology: Topology) -> bytes:
    """Topology as compressed JSON."""
    return zlib.compress(_ENCODER.encode(topology), 1)


def decode_topology(data: bytes) -> Topology:
    """Topology from compressed JSON."""
    return _DECODER.decode(zlib.decompress(data))
