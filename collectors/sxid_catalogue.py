"""The SXids of NVSwitches: what each group of codes means for the node behind them.

Codes after the table of NVIDIA's fabric manager; severities of the non-fatal groups are our
judgement, the texts are Pitwall's own.
"""

from __future__ import annotations

from collectors.actions import NVLINK_WORKFLOW, RESTART_NODE
from collectors.report import Severity
from collectors.xid_entry import ClearedBy, XidEntry

_SWITCH_LOG = "The switch and the link named in the line, and the fabric manager's log."


def _switch(
    codes: tuple[int, ...],
    name: str,
    severity: Severity,
    action: str,
    explanation: str,
    *,
    cleared_by: ClearedBy,
    look_at: str = _SWITCH_LOG,
) -> tuple[XidEntry, ...]:
    return tuple(
        XidEntry(
            code,
            name,
            "nvlink",
            severity,
            action,
            explanation,
            look_at,
            cleared_by=cleared_by,
            changes_health=severity not in ("info", "advice"),
        )
        for code in codes
    )


SWITCH_CATALOGUE: tuple[XidEntry, ...] = (
    *_switch(
        (12020, 22003, 22011, *range(23001, 23018)),
        "fatal for the NVLink fabric",
        "fatal",
        RESTART_NODE,
        "A switch failed in a way that takes the whole NVLink fabric of the machine with it. Every "
        "job that spans GPUs of this node stops until the host is restarted.",
        cleared_by="boot",
    ),
    *_switch(
        (20034,),
        "NVLink went down (LTSSM fault up)",
        "critical",
        NVLINK_WORKFLOW,
        "The link's state machine fell out of its running state and the link is down. The GPU at "
        "its other end raises XID 74 for the same event.",
        cleared_by="boot",
        look_at="The GPU that raised XID 74 at the same second, and its signal quality.",
    ),
    *_switch(
        (14017, 11001, 12001, 12002, *range(24004, 24008)),
        "fatal for an NVLink port",
        "critical",
        NVLINK_WORKFLOW,
        "One port of a switch failed, the rest of the switch goes on. The GPU behind the port loses "
        "the link and raises XID 74.",
        cleared_by="boot",
        look_at="The GPU that raised XID 74 at the same second, and its signal quality.",
    ),
    *_switch(
        (20001, 20009, 20012, 22013),
        "link error, recovered",
        "info",
        "Nothing to do while it is rare; the fabric manager's log names the link.",
        "A link met an error and repaired it by itself. Only a rate that grows is a reason to look "
        "at the cable side of it.",
        cleared_by="time",
    ),
    *_switch(
        (10004,),
        "switch too hot",
        "warning",
        "Check the machine's cooling.",
        "A switch crossed its temperature limit and may slow its links down. The GPUs beside it "
        "breathe the same air.",
        cleared_by="boot",
        look_at="Temperature margins of the node's GPUs and the inlet temperature of the rack.",
    ),
    *_switch(
        (10005,),
        "switch cool again",
        "info",
        "Nothing to do.",
        "A switch is back under its temperature limit. It ends what SXid 10004 began.",
        cleared_by="time",
        look_at="The SXid 10004 before it: how long it lasted.",
    ),
    *_switch(
        (11004,),
        "packet refused at the switch's entry (invalid ACL)",
        "warning",
        RESTART_NODE,
        "A packet arrived that the switch's access rules do not allow, so the fabric's set-up and "
        "the GPUs' disagree. It often follows a fabric manager that was restarted under load.",
        cleared_by="boot",
    ),
    *_switch(
        (12028,),
        "request that could not be answered at the switch's exit",
        "warning",
        RESTART_NODE,
        "A switch was asked over its own control path for something that it could not serve. One is "
        "harmless, a repeat means that the switch is not in the state the fabric manager thinks.",
        cleared_by="boot",
    ),
    *_switch(
        (19084,),
        "switch access error",
        "warning",
        RESTART_NODE,
        "The host could not reach a part of the switch in time. The links still carry traffic, but "
        "the switch can no longer be managed.",
        cleared_by="boot",
    ),
)

SWITCH_COOL_AGAIN = 10005
SWITCH_TOO_HOT = 10004
"""The one ends what the other opened."""
