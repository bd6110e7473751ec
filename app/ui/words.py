"""The page's words: states to tones, ages, counts. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

HEALTH = ("Healthy", "Degraded", "Failing", "Unknown")  # in the order of the frames' codes
SERVICE = ("In service", "Cordoned", "Draining", "Drained", "Under repair", "Probation")
OUT_OF_SERVICE = frozenset({"Drained", "Under repair"})

_HEALTH_TONES = {"Healthy": "calm", "Degraded": "watch", "Failing": "act", "Unknown": "blank"}
_SEVERITY_TONES = {
    "info": "quiet",
    "advice": "quiet",
    "warning": "watch",
    "critical": "act",
    "fatal": "act",
}
_OPERATION_TONES = {
    "Running": "busy",
    "Waiting": "watch",
    "Blocked": "act",
    "Cancelling": "busy",
    "Succeeded": "calm",
    "Failed": "act",
    "Cancelled": "quiet",
}
_JOB_TONES = {
    "Running": "calm",
    "Pending": "watch",
    "Suspended": "busy",
    "Stalled": "act",
    "Complete": "quiet",
    "Failed": "watch",
    "Removed": "quiet",
}
_SOURCE_TONES = {"ok": "calm", "late": "watch", "blind": "blank"}
_STEP_TONES = {"claimed": "busy", "done": "calm", "waiting": "watch", "failed": "act"}


def node_tone(health: str, service: str) -> str:
    """The tone of a node.

    Red is for what needs a person now: a failing node that is drained or being drained hurts no job any more
    and is shown as parked or busy.
    """
    if health in {"Failing", "Unknown"} and service in OUT_OF_SERVICE:
        return "quiet"
    if service == "Draining":
        return "busy"
    if health == "Healthy" and service != "In service":
        return "quiet"
    return _HEALTH_TONES.get(health, "blank")


def node_state(health: str, service: str) -> tuple[str, str]:
    """The word and the tone a list shows for a node: what is done about it once something is, else its health."""
    word = (
        service
        if service != "In service"
        and (service in OUT_OF_SERVICE or service == "Draining" or health == "Healthy")
        else health
    )
    return word, node_tone(health, service)


def health_tone(health: str, service: str = "In service") -> str:
    """The tone of a node's or GPU's health; quiet once the node is being taken care of."""
    if health in {"Failing", "Unknown"} and (service in OUT_OF_SERVICE or service == "Draining"):
        return "quiet"
    return _HEALTH_TONES.get(health, "blank")


def severity_tone(severity: str) -> str:
    return _SEVERITY_TONES.get(severity, "quiet")


def incident_tone(severity: str, *, handled: bool, over: bool) -> str:
    """The tone of an incident: quiet once somebody has it or it is over, for it needs nobody new then."""
    return "quiet" if handled or over else severity_tone(severity)


def operation_tone(state: str) -> str:
    return _OPERATION_TONES.get(state, "quiet")


def job_tone(state: str, *, nodes_failing: int = 0) -> str:
    """The tone of a job; running on a failing node needs a person."""
    return (
        "act"
        if nodes_failing and state in {"Running", "Stalled", "Pending"}
        else _JOB_TONES.get(state, "quiet")
    )


def source_tone(state: str) -> str:
    return _SOURCE_TONES.get(state, "blank")


def step_tone(state: str) -> str:
    return _STEP_TONES.get(state, "quiet")


def age(at: datetime | None, now: datetime) -> str:
    """How long ago, in two units at most: "8 s", "3 min", "2 h 10 min", "3 d 4 h"; "unknown" for None."""
    if at is None:
        return "unknown"
    seconds = max(0, int((now - at).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h" if hours >= 10 or not minutes % 60 else f"{hours} h {minutes % 60} min"
    return f"{days} d" if days >= 10 or not hours % 24 else f"{days} d {hours % 24} h"


def count(number: int, one: str, many: str | None = None) -> str:
    """ "1 node", "3 nodes", "43,750 nodes"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: list[str], *, most: int = 3) -> str:
    """ "a, b and c"; past `most` "a, b, c and 4 more"."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def milliseconds(at: datetime | None) -> int | None:
    """Unix time for the browser, which keeps ages ticking by itself."""
    return None if at is None else round(at.timestamp() * 1000)


def moment(written: object) -> datetime | None:
    """The time that a document of the store holds as ISO 8601; None when it holds none."""
    try:
        at = datetime.fromisoformat(str(written)) if written else None
    except ValueError:
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


def after(at: datetime | None, first: datetime | None) -> str:
    """How long after the first: "+4 s", "+2 min"; "before" by as much as "-3 s"; "" when either is not known."""
    if at is None or first is None:
        return ""
    return f"+{age(first, at)}" if at >= first else f"\N{MINUS SIGN}{age(at, first)}"


def hours(amount: float) -> str:
    """GPU-hours: "0.4", "131.7", "12,040"."""
    return f"{amount:,.1f}" if amount < 1000 else f"{amount:,.0f}"


def sentence(text: str) -> str:
    """The text with a capital letter to begin with, the rest as it is."""
    return text[:1].upper() + text[1:]


def total(counts: Mapping[str, int], *names: str) -> int:
    return sum(counts.get(name, 0) for name in names)


def ranks(numbers: list[int]) -> str:
    """ "0-7, 12": ranks folded into ranges."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)
