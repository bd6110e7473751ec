"""The latest reading of each GPU, a row a GPU."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter

import msgspec
from sqlalchemy import Connection

from app.store.writes.bulk import Row, Upsert, clock, select_where_in, update, upsert
from collectors.health import SEVERITY_RANK
from collectors.readings import GpuReading
from collectors.report import Finding, Report

_IDENTITY = ("index", "pci_bus_id", "serial", "name")
_MEASURED = (
    "temperature_celsius",
    "power_watts",
    "gpu_utilization_ratio",
    "memory_temperature_celsius",
    "temperature_margin_celsius",
    "power_limit_watts",
    "energy_joules_total",
    "sm_clock_hertz",
    "memory_clock_hertz",
    "clocks_event_reasons",
    "memory_utilization_ratio",
    "memory_used_bytes",
    "memory_total_bytes",
    "ecc_corrected_total",
    "ecc_uncorrected_total",
    "remapped_correctable",
    "remapped_uncorrectable",
    "remap_pending",
    "remap_failure",
    "pcie_generation",
    "pcie_width",
    "pcie_replay_total",
    "nvlink_active_links",
    "nvlink_crc_errors_total",
    "fabric_state",
    "recovery_action",
)
_JUDGED = ("cluster", "node", "health", "health_reason", "health_since", "pod_uid", "missing")
COLUMNS = (*_JUDGED, "observed_at", "uuid", *_IDENTITY, *_MEASURED)
NODE, HEALTH, POD, INDEX = map(COLUMNS.index, ("node", "health", "pod_uid", "index"))
PLACES = {name: COLUMNS.index(name) for name in COLUMNS}

_read = attrgetter("uuid", *_IDENTITY, *_MEASURED)

_GPU = Upsert(
    table="gpu",
    columns=COLUMNS,
    key=("cluster", "uuid"),
    updates={
        "health": None,
        "health_reason": None,
        "health_since": "CASE WHEN old.health = new.health THEN old.health_since ELSE new.health_since END",
        "pod_uid": None,
        "missing": None,
        "observed_at": None,
        # A GPU that answers nothing any more is still the one it was.
        **{name: f'COALESCE(new."{name}", old."{name}")' for name in _IDENTITY},
        **dict.fromkeys(_MEASURED),
    },
    # A GPU is its node's: what another node claims is not taken while its own reports it (see move_gpus).
    guard="old.node = new.node",
)

NO_FINDING = "no open finding"


@dataclass
class GpuRows:
    """Rows ready to be stored, those of a node together: `counts[i]` rows belong to `nodes[i]`."""

    rows: list[Row] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def build_rows(
    connection: Connection,
    cluster: str,
    newest: Mapping[str, Report],
    *,
    open_by_node: Mapping[str, Sequence[Finding]],
    stale: Mapping[str, str],
) -> GpuRows:
    """The rows of each node's newest report.

    `stale` has the reason for nodes whose newest report is too old to say how they are now.
    """
    stored = clock(connection)
    built = GpuRows()
    rows = built.rows
    allocated: list[tuple[int, GpuReading]] = []
    encode = msgspec.json.encode
    missing: dict[str, str] = {}
    reasons: str | None = None
    for node, report in newest.items():
        gpus = report.gpus
        built.nodes.append(node)
        built.counts.append(len(gpus))
        if not gpus:
            continue
        at = stored(report.observed_at)
        findings = open_by_node.get(node)
        usual = ("Healthy", NO_FINDING) if node not in stale else ("Unknown", stale[node])
        hurt = _hurt(findings) if findings and node not in stale else None
        for gpu in gpus:
            health, reason = usual if hurt is None else hurt.get(gpu.uuid, usual)
            pods = gpu.pod_uids
            # Most GPUs of a fleet lack the same values for the same reasons.
            if gpu.missing != missing:
                missing = gpu.missing
                reasons = encode(missing).decode() if missing else None
            if gpu.allocated_to:
                allocated.append((len(rows), gpu))
            rows.append(
                (
                    cluster,
                    node,
                    health,
                    reason,
                    at,
                    pods[0] if pods else None,
                    reasons,
                    at,
                    *_read(gpu),
                )
            )
    _name_pods(connection, cluster, rows, allocated)
    return built


def store_rows(connection: Connection, built: GpuRows) -> None:
    """Write the rows over what is known; a GPU that another node reports keeps that node's row."""
    upsert(connection, _GPU, built.rows)


def move_gpus(
    connection: Connection,
    cluster: str,
    reports: Iterable[Report],
    *,
    silent_before: datetime,
) -> None:
    """Let GPUs that were put into another node follow, once their old node has not reported them for long."""
    claimed = {gpu.uuid: report.node for report in reports for gpu in report.gpus}
    known = select_where_in(
        connection,
        "SELECT uuid, node FROM gpu WHERE cluster = :cluster AND {uuid IN (:names)}",
        list(claimed),
        cluster=cluster,
    )
    limit = clock(connection)(silent_before)
    update(
        connection,
        "UPDATE gpu SET node = ? WHERE cluster = ? AND uuid = ? "
        "AND (observed_at IS NULL OR observed_at < ?)",
        [
            (claimed[uuid], cluster, uuid, limit)
            for uuid, node in known
            if claimed.get(uuid, node) != node
        ],
    )


def miss_gpus(connection: Connection, cluster: str, reports: Iterable[tuple[Report, str]]) -> None:
    """Make Unknown what a node's newest report does not list, each with the reason given."""
    stored = clock(connection)
    update(
        connection,
        "UPDATE gpu SET health_since = CASE WHEN health = 'Unknown' THEN health_since ELSE ? END, "
        "health = 'Unknown', health_reason = ? "
        "WHERE cluster = ? AND node = ? AND (observed_at IS NULL OR observed_at < ?)",
        [
            (at, reason, cluster, node, at)
            for at, reason, node in (
                (stored(report.observed_at), reason, report.node) for report, reason in reports
            )
        ],
    )


def note_xids(
    connection: Connection, cluster: str, xids: Iterable[tuple[str, str, int, datetime]]
) -> None:
    """Keep each GPU's last XID: (node, GPU UUID, code, time)."""
    stored = clock(connection)
    update(
        connection,
        "UPDATE gpu SET last_xid = ?, last_xid_at = ? WHERE cluster = ? AND uuid = ? AND node = ? "
        "AND (last_xid_at IS NULL OR last_xid_at <= ?)",
        [
            (code, stored(at), cluster, uuid, node, stored(at))
            for node, uuid, code, at in sorted(xids, key=lambda xid: xid[3])
        ],
    )


def _hurt(findings: Sequence[Finding]) -> dict[str, tuple[str, str]]:
    """Health and reason of each GPU with a finding that changes health."""
    worst: dict[str, Finding] = {}
    for finding in findings:
        uuid, rank = finding.gpu_uuid, SEVERITY_RANK[finding.severity]
        if uuid is None or not finding.changes_health or rank < SEVERITY_RANK["warning"]:
            continue
        known = worst.get(uuid)
        if known is None or (-rank, finding.since) < (-SEVERITY_RANK[known.severity], known.since):
            worst[uuid] = finding
    return {
        uuid: ("Degraded" if finding.severity == "warning" else "Failing", finding.message)
        for uuid, finding in worst.items()
    }


def _name_pods(
    connection: Connection,
    cluster: str,
    rows: list[Row],
    allocated: Sequence[tuple[int, GpuReading]],
) -> None:
    """Put the UID of the pod a GPU is given to into its row; the kubelet's PodResources knows no UIDs."""
    if not allocated:
        return
    uid_of = {
        (node, namespace, name): uid
        for uid, node, namespace, name in select_where_in(
            connection,
            "SELECT uid, node, namespace, name FROM pod WHERE cluster = :cluster AND {node IN (:names)}",
            sorted({rows[place][NODE] for place, _ in allocated}),
            cluster=cluster,
        )
    }
    for place, gpu in allocated:
        row = rows[place]
        for pod in gpu.allocated_to:
            uid = uid_of.get((row[NODE], pod.namespace, pod.name))
            if uid is not None:
                rows[place] = (*row[:POD], uid, *row[POD + 1 :])
                break
