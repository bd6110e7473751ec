"""The wire: what goes in comes out, and what is broken is refused with its field named."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

import msgspec
import pytest

from collectors.errors import ReportError, ReportTooLargeError, SchemaVersionError
from collectors.readings import GpuReading
from collectors.report import (
    MAX_DECODED_BYTES,
    MAX_REPORT_BYTES,
    SCHEMA_VERSION,
    Finding,
    NvmlState,
    Report,
    XidEvent,
    decode_report,
    encode_report,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def make_report(**changes: object) -> Report:
    report = Report(
        schema_version=SCHEMA_VERSION,
        cluster="default",
        node="h100-a-1-1",
        spool_id="0f" * 16,
        sequence=7,
        observed_at=NOW,
        boot_id="7c6f0bd2-4ef1-4c4d-9a6c-7a3f3c5a7a11",
        agent_version="0.1.0",
        nvml=NvmlState(answering=True, since=NOW),
        gpus=[
            GpuReading(
                uuid="GPU-1",
                index=0,
                temperature_celsius=35.0,
                pod_uids=("pod-1",),
                missing={"mig_mode": "not supported"},
            )
        ],
        xids=[XidEvent(event_id="e1", at=NOW, last_at=NOW, xid=79, gpu_uuid="GPU-1")],
        findings=[
            Finding(
                episode="e2", rule="xid-79", severity="fatal", message="m", action="a", since=NOW
            )
        ],
    )
    return msgspec.structs.replace(report, **changes)


def tamper(**changes: object) -> bytes:
    document = msgspec.json.decode(gzip.decompress(encode_report(make_report())))
    document.update(changes)
    return gzip.compress(msgspec.json.encode(document))


def test_a_report_survives_the_wire() -> None:
    assert decode_report(encode_report(make_report())) == make_report()


def test_unknown_values_are_absent_on_the_wire_and_none_after_it() -> None:
    body = encode_report(make_report())
    assert b"power_watts" not in gzip.decompress(body)
    assert decode_report(body).gpus[0].power_watts is None


def test_a_field_of_a_later_release_is_passed_over() -> None:
    assert decode_report(tamper(added_later={"x": 1})) == make_report()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sequence": -1}, "$.sequence"),
        ({"node": ""}, "$.node"),
        ({"observed_at": "2026-03-01T12:00:00"}, "$.observed_at"),
        ({"spool_id": "../x"}, "$.spool_id"),
        ({"gpus": [{"uuid": "GPU-1", "gpu_utilization_ratio": 87}]}, "gpu_utilization_ratio"),
        ({"gpus": [{"index": 1}]}, "uuid"),
        ({"xids": [{}] * 2}, "event_id"),
        ({"findings": "none"}, "$.findings"),
    ],
)
def test_a_broken_field_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ReportError, match=r".") as caught:
        decode_report(tamper(**changes))
    assert named in str(caught.value)


def test_a_foreign_schema_version_is_refused_before_its_fields() -> None:
    with pytest.raises(SchemaVersionError, match="schema_version 99"):
        decode_report(tamper(schema_version=99, node=5))


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xff", b"{}", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b"\xff{")],
)
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(ReportError):
        decode_report(body)


def test_a_cut_body_is_refused() -> None:
    with pytest.raises(ReportError):
        decode_report(encode_report(make_report())[:-12])


def test_a_large_body_is_refused_unread() -> None:
    with pytest.raises(ReportTooLargeError):
        decode_report(b"x" * (MAX_REPORT_BYTES + 1))


def test_a_small_body_that_unpacks_to_much_is_refused() -> None:
    bomb = gzip.compress(b" " * (MAX_DECODED_BYTES + 10))
    assert len(bomb) < MAX_REPORT_BYTES
    with pytest.raises(ReportTooLargeError):
        decode_report(bomb)
