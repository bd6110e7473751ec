"""Reports of nodes that only dcgm-exporter speaks of, in the form that agents send."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from collectors.dcgm_columns import DcgmTable
from collectors.dcgm_labels import find_driver
from collectors.dcgm_readings import FindPod, make_readings
from collectors.dcgm_words import HostVerdict
from collectors.report import MAX_FINDINGS, SCHEMA_VERSION, NvmlState, Report

NO_AGENT = "dcgm-exporter"
"""What stands where an agent names its version."""


def compose_reports(
    table: DcgmTable,
    verdicts: Iterable[tuple[str, HostVerdict]],
    *,
    cluster: str,
    spool_id: str,
    sequence: int,
    now: datetime,
    find_pod: FindPod | None = None,
) -> list[Report]:
    """Return a report of each host with its verdict.

    It was observed when the samples were scraped, by the clock of `now`: that of Prometheus is not
    ours. A node without a finding says how many rules nobody could judge.
    """
    told = list(verdicts)
    readings = make_readings(
        table, [place for host, _ in told for place in table.places[host]], find_pod=find_pod
    )
    reports, at = [], 0
    for host, verdict in told:
        places = table.places[host]
        gpus = readings[at : at + len(places)]
        at += len(places)
        observed_at = now - timedelta(seconds=verdict.age_seconds)
        # A GPU of which only the last XID is left is not there.
        there = [gpu for gpu, place in zip(gpus, places, strict=True) if table.is_there[place]]
        reports.append(
            Report(
                schema_version=SCHEMA_VERSION,
                cluster=cluster,
                node=verdict.word.name,
                spool_id=spool_id,
                sequence=sequence,
                observed_at=observed_at,
                boot_id=verdict.boot_id,
                agent_version=NO_AGENT,
                driver_version=find_driver(table.labels[places[0]]),
                nvml=NvmlState(answering=True, message=word_unjudged(verdict)),
                polled_at=observed_at,
                expected_gpus=verdict.expected_gpus or None,
                gpus=sorted(there, key=lambda gpu: (gpu.index is None, gpu.index, gpu.uuid)),
                xids=list(verdict.xids),
                findings=list(verdict.findings[:MAX_FINDINGS]),
            )
        )
    return reports


def word_unjudged(verdict: HostVerdict) -> str | None:
    """What a node without a finding must say: that nobody looks at some of what may be wrong."""
    if not verdict.unjudged_rules:
        return None
    return (
        f"no open finding; {verdict.unjudged_rules} of {verdict.gpu_rules} GPU rules cannot be "
        "judged from dcgm-exporter's series"
    )
