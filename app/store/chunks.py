"""How minutes of a node's GPUs are packed: one chunk for a minute, an hour, or a day's hours.

A chunk is a version byte and zlib of MessagePack: the times (minutes since 1970), the GPUs' UUIDs,
how many readings each mean is of, and float32 means, minima and maxima by time, GPU and metric. NaN is unknown.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy
from numpy.typing import NDArray

METRICS = (
    "temperature_celsius",
    "memory_temperature_celsius",
    "power_watts",
    "sm_clock_hertz",
    "gpu_utilization_ratio",
    "memory_utilization_ratio",
    "memory_used_bytes",
)
"""Metrics whose history is kept; a chunk names its own, so that more may follow."""

_VERSION = b"\x01"

Floats = NDArray[numpy.float32]


class _Packed(msgspec.Struct, array_like=True):
    minutes: list[int]
    gpus: list[str]
    metrics: list[str]
    counts: bytes
    values: bytes


@dataclass(frozen=True)
class Chunk:
    """Readings of a node: `counts` is minutes x GPUs, the others minutes x GPUs x metrics."""

    minutes: tuple[int, ...]
    gpus: tuple[str, ...]
    metrics: tuple[str, ...]
    counts: NDArray[numpy.uint16]
    mean: Floats
    low: Floats
    high: Floats


def pack_chunk(chunk: Chunk, *, level: int = 6) -> bytes:
    """The chunk as bytes; level 1 for what is soon packed again."""
    values = numpy.stack([chunk.mean, chunk.low, chunk.high]).astype("<f4")
    packed = _Packed(
        list(chunk.minutes),
        list(chunk.gpus),
        list(chunk.metrics),
        chunk.counts.astype("<u2").tobytes(),
        values.tobytes(),
    )
    return _VERSION + zlib.compress(msgspec.msgpack.encode(packed), level)


def unpack_chunk(data: bytes) -> Chunk:
    """The chunk in these bytes. Raises ValueError for a version that is not known."""
    if data[:1] != _VERSION:
        raise ValueError(f"history chunk of unknown version {data[:1]!r}")
    packed = msgspec.msgpack.decode(zlib.decompress(data[1:]), type=_Packed)
    shape = (len(packed.minutes), len(packed.gpus), len(packed.metrics))
    values = numpy.frombuffer(packed.values, dtype="<f4").reshape(3, *shape)
    counts = numpy.frombuffer(packed.counts, dtype="<u2").reshape(shape[:2])
    return Chunk(
        tuple(packed.minutes),
        tuple(packed.gpus),
        tuple(packed.metrics),
        counts.astype(numpy.uint16),
        values[0],
        values[1],
        values[2],
    )


def merge_chunks(chunks: Sequence[Chunk], *, minutes_each: int = 1) -> Chunk:
    """One chunk of all: parts of the same minute of the same GPU are weighed by their readings.

    `minutes_each` above 1 folds that many minutes into one, counted from its first minute.
    """
    minutes = sorted(
        {minute - minute % minutes_each for chunk in chunks for minute in chunk.minutes}
    )
    gpus = list(dict.fromkeys(gpu for chunk in chunks for gpu in chunk.gpus))
    metrics = list(dict.fromkeys(metric for chunk in chunks for metric in chunk.metrics))
    shape = (len(minutes), len(gpus), len(metrics))
    counts = numpy.zeros(shape[:2], dtype=numpy.int64)
    sums, weights = numpy.zeros(shape), numpy.zeros(shape)
    low, high = numpy.full(shape, numpy.nan), numpy.full(shape, numpy.nan)
    row_of = {minute: row for row, minute in enumerate(minutes)}
    gpu_of = {gpu: column for column, gpu in enumerate(gpus)}
    metric_of = {metric: place for place, metric in enumerate(metrics)}
    for chunk in chunks:
        columns = numpy.array([gpu_of[gpu] for gpu in chunk.gpus], dtype=numpy.int64)
        places = numpy.array([metric_of[metric] for metric in chunk.metrics], dtype=numpy.int64)
        for row, minute in enumerate(chunk.minutes):
            place = row_of[minute - minute % minutes_each]
            into = numpy.ix_(numpy.array([place]), columns, places)
            weight = numpy.where(
                numpy.isnan(chunk.mean[row]), 0.0, chunk.counts[row][:, None].astype(float)
            )
            counts[place, columns] += chunk.counts[row]
            sums[into] += numpy.nan_to_num(chunk.mean[row]) * weight
            weights[into] += weight
            low[into] = numpy.fmin(low[into], chunk.low[row])
            high[into] = numpy.fmax(high[into], chunk.high[row])
    with numpy.errstate(invalid="ignore", divide="ignore"):
        mean = numpy.where(weights > 0, sums / weights, numpy.nan)
    return Chunk(
        tuple(minutes),
        tuple(gpus),
        tuple(metrics),
        numpy.minimum(counts, 65535).astype(numpy.uint16),
        mean.astype(numpy.float32),
        low.astype(numpy.float32),
        high.astype(numpy.float32),
    )
