"""Troubles of one family on many nodes at once, explained by what the nodes share. Pure.

The measure is certainty_ratio: the share of the domain that is hit times the share of the hit that is in
the domain. It is 1 when all nodes of a leaf are hit and no other node is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.incidents.classes import ABSENCE_RULES, FAMILIES, families_of
from app.incidents.model import DOMAIN_SCOPES, Evidence, Fault, NodeFact

LEAST_NODES = 3
"""Source: judgement. Two nodes of one rack fail together by chance too often."""

DOMAIN_SECONDS = 120.0
"""Source: judgement. A switch or a pump hits its nodes at once; hold times and polls spread what is seen."""

HIT_RATIO = 0.5
"""Source: judgement. From this share of a domain on it is named whatever goes on elsewhere."""

LEAST_HIT_RATIO = 0.1
"""Source: judgement. When all that are hit share a domain but are less of it than this, it explains nothing:
any three nodes share the only block of a small site."""

CERTAIN_RATIO = 0.95
LIKELY_RATIO = 0.5

JOIN_SECONDS = 600.0
"""Source: judgement. So long after the last one a further node of the domain is hit by the same thing."""

_NARROWEST: Mapping[str, tuple[str, ...]] = {
    "link": DOMAIN_SCOPES,
    "cooling": ("rack", "block", "power", "leaf"),
    "power": ("power", "rack", "leaf", "block"),
    "silence": DOMAIN_SCOPES,
}
"""Which kind is named where several hold the same nodes: a leaf switch cools nothing."""

KIND_WORDS = {"leaf": "leaf", "rack": "rack", "power": "power domain", "block": "block"}


@dataclass(frozen=True)
class Domain:
    """What the nodes hit share. `also`: other kinds that hold the very same nodes, (kind, name)."""

    kind: str
    name: str
    family: str
    nodes: frozenset[str]
    start: datetime
    end: datetime
    size: int
    hit_elsewhere: int
    ratio: float
    also: tuple[tuple[str, str], ...] = ()

    @property
    def certainty(self) -> str:
        """In a word."""
        return certainty_of(self.ratio, alone=not self.also)


def certainty_of(ratio: float, *, alone: bool) -> str:
    """certain, likely or possible. alone: no other kind of domain holds the same nodes."""
    if ratio >= CERTAIN_RATIO and alone:
        return "certain"
    return "likely" if ratio >= LIKELY_RATIO else "possible"


def family_of_rule(rule: str) -> str | None:
    """The family by which a domain's incident takes in further nodes: the first that has the rule."""
    order = ("link", "cooling", "silence", "power")
    return next((family for family in order if rule in FAMILIES[family]), None)


def places_to_count(
    faults: Iterable[Fault], nodes: Mapping[str, NodeFact], standing: Iterable[tuple[str, str]] = ()
) -> frozenset[tuple[str, str]]:
    """The domains, (kind, name), whose sizes `find_domains` may ask for; none in a quiet fleet.

    standing: the domains that have an incident.
    """
    hit: dict[tuple[str, str, str], set[str]] = {}
    for fault in faults:
        node = nodes.get(fault.node)
        if node is None:
            continue
        for family in families_of(fault):
            for kind, name in node.places.items():
                hit.setdefault((family, kind, name), set()).add(fault.node)
    found = {(kind, name) for (_, kind, name), names in hit.items() if len(names) >= LEAST_NODES}
    return frozenset(found | {place for place in standing if place[0] in DOMAIN_SCOPES})


def find_domains(
    faults: Sequence[Fault],
    nodes: Mapping[str, NodeFact],
    *,
    sizes: Mapping[tuple[str, str], int],
    nodes_known: int,
) -> list[Domain]:
    """The domains that explain troubles of many nodes, each node in one a family at most; the surest first."""
    found: list[Domain] = []
    explained: set[str] = set()
    for family in ("link", "cooling", "power", "silence"):
        starts = _starts(faults, family, explained)
        while len(starts) >= LEAST_NODES:
            best = _surest(family, starts, nodes, sizes=sizes, nodes_known=nodes_known)
            if best is None:
                break
            found.append(best)
            for node in best.nodes:
                del starts[node]
            explained |= best.nodes
    return sorted(found, key=lambda domain: (-domain.ratio, domain.start, domain.name))


def tell_arithmetic(domain: Domain, nodes_known: int) -> list[Evidence]:
    """The counts that the certainty rests on."""
    elsewhere = max(nodes_known - domain.size, domain.hit_elsewhere)
    words = KIND_WORDS[domain.kind]
    text = (
        f"{len(domain.nodes):,} of {max(domain.size, len(domain.nodes)):,} nodes of {words} {domain.name}, "
        f"{domain.hit_elsewhere:,} of {elsewhere:,} elsewhere"
    )
    told = [Evidence(domain.start, "topology", text, "topology")]
    for kind, name in domain.also:
        same = f"{KIND_WORDS[kind]} {name} holds the very same nodes: it may be that one"
        told.append(Evidence(domain.start, "topology", same, f"topology-{kind}"))
    return told


def measure(
    kind: str,
    name: str,
    *,
    family: str,
    hit: frozenset[str],
    start: datetime,
    end: datetime,
    elsewhere: int,
    sizes: Mapping[tuple[str, str], int],
    nodes: Mapping[str, NodeFact],
) -> Domain:
    """The domain with what is hit of it. elsewhere: nodes hit that are not in it."""
    size = max(sizes.get((kind, name), 0), len(hit))
    ratio = (len(hit) / size) * (len(hit) / (len(hit) + elsewhere))
    also = []
    for other in DOMAIN_SCOPES:
        names = {nodes[node].places.get(other) for node in hit if node in nodes}
        if other == kind or len(names) != 1:
            continue
        (shared,) = names
        if shared is not None and sizes.get((other, shared)) == size:
            also.append((other, shared))
    return Domain(kind, name, family, hit, start, end, size, elsewhere, ratio, tuple(also))


def _starts(faults: Iterable[Fault], family: str, explained: set[str]) -> dict[str, datetime]:
    """When each node's trouble of the family began. explained: nodes whose absence has its domain."""
    starts: dict[str, datetime] = {}
    own = False
    for fault in faults:
        is_absence = fault.rule in ABSENCE_RULES
        if family not in families_of(fault) or (is_absence and fault.node in explained):
            continue
        own = own or not is_absence
        starts[fault.node] = min(fault.opened_at, starts.get(fault.node, fault.opened_at))
    # Nodes that are merely missed are no sign of power: they are the family of silence.
    return {} if family == "power" and not own else starts


def _surest(
    family: str,
    starts: Mapping[str, datetime],
    nodes: Mapping[str, NodeFact],
    *,
    sizes: Mapping[tuple[str, str], int],
    nodes_known: int,
) -> Domain | None:
    candidates: list[tuple[float, int, str, Domain]] = []
    for order, kind in enumerate(_NARROWEST[family]):
        by_name: dict[str, list[tuple[datetime, str]]] = {}
        for node, at in starts.items():
            name = nodes[node].places.get(kind) if node in nodes else None
            if name is not None:
                by_name.setdefault(name, []).append((at, node))
        for name, hits in by_name.items():
            for start, end, members in _together(sorted(hits)):
                inside = sum(1 for at in starts.values() if start <= at <= end)
                domain = measure(
                    kind,
                    name,
                    family=family,
                    hit=members,
                    start=start,
                    end=end,
                    elsewhere=inside - len(members),
                    sizes=sizes,
                    nodes=nodes,
                )
                if _explains(domain, nodes_known):
                    candidates.append((-domain.ratio, order, name, domain))
    return min(candidates, key=lambda each: each[:3])[3] if candidates else None


def _explains(domain: Domain, nodes_known: int) -> bool:
    hit_ratio = len(domain.nodes) / domain.size
    if hit_ratio >= HIT_RATIO:
        return True
    is_part = domain.size < nodes_known
    return domain.hit_elsewhere == 0 and hit_ratio >= LEAST_HIT_RATIO and is_part


def _together(
    hits: Sequence[tuple[datetime, str]],
) -> list[tuple[datetime, datetime, frozenset[str]]]:
    """Runs of hits in which any window of 120 s has at least three; hits by time."""
    window = timedelta(seconds=DOMAIN_SECONDS)
    runs: list[tuple[int, int]] = []
    start = 0
    for end, (at, _) in enumerate(hits):
        while at - hits[start][0] > window:
            start += 1
        if end - start + 1 < LEAST_NODES:
            continue
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [
        (hits[first][0], hits[last][0], frozenset(node for _, node in hits[first : last + 1]))
        for first, last in runs
    ]
