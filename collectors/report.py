"""The wire between an agent and ingest: one report of one node, JSON in gzip.

(cluster, node, spool_id, sequence) names a report for ever: a sequence is never used twice
within a spool, and a spool's id is random. `observed_at` tells which of two reports is newer.
An XID event has an `event_id`; the same id may come again in a later report with a greater
`count` and `last_at` (lines folded into it since), and replaces what was said before. A
finding is in every report while it is open, always with the `episode` it was opened with;
when a later report of the node lacks it, it is closed.
"""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from collectors.errors import ReportError, ReportTooLargeError, SchemaVersionError
from collectors.readings import Count, GpuReading, PortReading, Sentence, Text, Uuid

SCHEMA_VERSION = 1
ACCEPTED_VERSIONS: tuple[int, ...] = (1,)
"""The current version and, once there is one, the version before it."""

MAX_REPORT_BYTES = 256 * 1024
"""Compressed body taken; a node of 8 GPUs sends about 2 kB, of 8 with a full XID list 40 kB."""

MAX_DECODED_BYTES = 4 * 1024 * 1024
"""Unpacked body taken, so that a small body cannot fill memory."""

MAX_XIDS = 512
MAX_FINDINGS = 1024
MAX_GPUS = 128
MAX_PORTS = 64

Severity = Literal["info", "advice", "warning", "critical", "fatal"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class NvmlState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Whether NVML answers, since when it is so, and the reason in words when it does not."""

    answering: bool
    since: Moment | None = None
    message: Sentence | None = None


class XidEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One XID or SXid, its repeats folded in.

    `at` is the first occurrence and `last_at` the last; repeats of the same code on the same
    GPU no more than `window_seconds` after the one before count as one event with `count`.
    `source` is "nvml", "kernel", "nvml+kernel" or "dcgm". `kind` is "sxid" for a switch, whose
    `gpu_uuid` is None. `recovery_action` is what an XID 154 names.
    """

    event_id: Identifier
    at: Moment
    last_at: Moment
    xid: Count
    kind: Literal["xid", "sxid"] = "xid"
    gpu_uuid: Uuid | None = None
    pci_bus_id: Text | None = None
    text: Sentence = ""
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    source: Text = "kernel"
    window_seconds: float = 5.0
    recovery_action: Count | None = None


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One open fault as a rule sees it.

    `episode` is made at opening and stays for as long as the finding is open, over restarts
    of the agent too. `changes_health` is False for application-class XIDs, contained ECC and
    disagreements between sources. `pod_uids` are the pods hit, where the rule knows them.
    """

    episode: Identifier
    rule: Text
    severity: Severity
    message: Sentence
    action: Sentence
    since: Moment
    gpu_uuid: Uuid | None = None
    xid: Count | None = None
    changes_health: bool = True
    pod_uids: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()


class AgentCounters(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the agent lost or refused since its spool was made."""

    reports_dropped_total: Count = 0
    reports_rejected_total: Count = 0
    polls_failed_total: Count = 0
    kernel_lines_unreadable_total: Count = 0
    nvml_children_replaced_total: Count = 0


class Report(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One node at `observed_at`. `expected_gpus` is the highest GPU count ever seen on it.

    `polled_at` is when NVML was last read: while NVML does not answer, `gpus` is empty and
    `observed_at` goes on. `trigger` says why it was sent: "start", "interval" or "change".
    """

    schema_version: int
    cluster: Name
    node: Name
    spool_id: Identifier
    sequence: Count
    observed_at: Moment
    boot_id: Text
    agent_version: Text
    nvml: NvmlState
    polled_at: Moment | None = None
    driver_version: Text | None = None
    expected_gpus: Count | None = None
    trigger: Text = "interval"
    gpus: Annotated[list[GpuReading], msgspec.Meta(max_length=MAX_GPUS)] = []
    xids: Annotated[list[XidEvent], msgspec.Meta(max_length=MAX_XIDS)] = []
    findings: Annotated[list[Finding], msgspec.Meta(max_length=MAX_FINDINGS)] = []
    counters: AgentCounters = AgentCounters()
    ports: Annotated[list[PortReading], msgspec.Meta(max_length=MAX_PORTS)] = []


class _Versioned(msgspec.Struct):
    schema_version: int


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Report)
_VERSION_DECODER = msgspec.json.Decoder(_Versioned)


def encode_report(report: Report) -> bytes:
    """Return the report as gzip of JSON, the body of POST /agent/v1/reports."""
    # Level 1 costs a third of level 6 here and is 10 % larger; the agent's budget is CPU.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(_ENCODER.encode(report)) + packer.flush()


def decode_report(body: bytes, *, compressed: bool = True) -> Report:
    """Return the report in a request body.

    Raises ReportTooLargeError (413), SchemaVersionError or ReportError (400): each names the
    field and what is wrong with it. Never unpacks more than MAX_DECODED_BYTES.
    """
    if len(body) > MAX_REPORT_BYTES and compressed:
        raise ReportTooLargeError(
            f"report of {len(body)} bytes is over the limit of {MAX_REPORT_BYTES}: "
            "raise the agent's version or look at what the node reports"
        )
    document = _unpack(body) if compressed else body
    if len(document) > MAX_DECODED_BYTES:
        raise ReportTooLargeError(
            f"report unpacks to more than {MAX_DECODED_BYTES} bytes: refused unread"
        )
    try:
        version = _VERSION_DECODER.decode(document).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"report is not JSON with a schema_version: {error}") from error
    if version not in ACCEPTED_VERSIONS:
        accepted = ", ".join(str(known) for known in ACCEPTED_VERSIONS)
        raise SchemaVersionError(
            f"report has schema_version {version}, this release reads {accepted}: "
            "bring the agent or ingest to the same release"
        )
    try:
        return _DECODER.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"report breaks schema version {version}: {error}") from error


def _unpack(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(31)
    try:
        document = unpacker.decompress(body, MAX_DECODED_BYTES + 1)
    except zlib.error as error:
        raise ReportError(f"report is not gzip: {error}") from error
    if len(document) <= MAX_DECODED_BYTES and not unpacker.eof:
        raise ReportError("report is cut short: the gzip stream has no end")
    return document
