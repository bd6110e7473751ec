"""Which faults have one cause: the pipeline, a shared domain, a node, or a job, in this order. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.incidents.classes import (
    ABSENCE_RULES,
    NOT_READY,
    PLANNED_RULES,
    SAME_FAILURE,
    SILENT,
    class_of,
    families_of,
)
from app.incidents.domains import (
    JOIN_SECONDS,
    Domain,
    family_of_rule,
    find_domains,
    measure,
)
from app.incidents.model import DOMAIN_SCOPES, PIPELINE, Fault, Key, NodeFact, Standing, World
from app.incidents.silence import AGENTS, KUBELETS, find_mass_silence, is_returning

FOLLOWS_SECONDS = 600.0
"""Source: judgement. So long after a first failure its consequences show: NCCL's own time-out is 10 minutes."""

GONE_RATIO = 0.8
"""Source: judgement. A mass of nodes that neither agent nor kubelet speaks for is a domain's and not the
pipeline's when the domain explains it as well as this."""


@dataclass
class Pile:
    """The faults of one cause. roots keep it open; followed are told and no more."""

    roots: list[Fault] = field(default_factory=list)
    followed: list[Fault] = field(default_factory=list)
    domain: Domain | None = None
    is_over: bool = False

    @property
    def nodes(self) -> set[str]:
        """Those with a fault of their own in it now; where a job's rank crashed says nothing of that node."""
        return {
            fault.node
            for fault in (*self.roots, *self.followed)
            if fault.node and class_of(fault) not in ("job", "application")
        }

    @property
    def begin(self) -> datetime:
        """When the first of it began."""
        return min(fault.opened_at for fault in self.roots)


Piles = dict[Key, Pile]
Homes = Mapping[str, Standing]
"""Which open incident has told of an episode."""


def find_homes(standing: Iterable[Standing]) -> dict[str, Standing]:
    """The open incident of each episode; a domain's before the pipeline's before any other."""
    order = {PIPELINE: 1} | dict.fromkeys(DOMAIN_SCOPES, 2)
    ranked = sorted(standing, key=lambda one: order.get(one.scope, 0))
    return {episode: one for one in ranked for episode in one.findings}


def is_meant(fault: Fault, node: NodeFact | None, homes: Homes) -> bool:
    """Whether a fault is what a planned absence looks like; what an open incident tells of is not.

    Nor does a node that was never heard make one.
    """
    if fault.rule not in PLANNED_RULES or fault.episode in homes or node is None:
        return False
    if not node.reported or node.planned is not None:
        return True
    return node.off_since is not None and fault.opened_at >= node.off_since


def pile_nodes(faults: Sequence[Fault], world: World, homes: Homes, now: datetime) -> Piles:
    """Faults of nodes piled by cause: each grave one and each absence in one pile."""
    piles: Piles = {}
    left = _stay_in_domains(faults, homes, piles, _outgrown(faults, world))
    left = _join_domains(left, world, piles)
    left = _pile_shared(left, world, piles)
    left = _pile_masses(left, world, homes, piles, now)
    shared = {
        node: key for key, pile in piles.items() if key[0] in DOMAIN_SCOPES for node in pile.nodes
    }
    begins = {key: piles[key].begin for key in set(shared.values())}
    for fault in left:
        if class_of(fault) not in ("hardware", "absence"):
            continue
        key = shared.get(fault.node)
        # A node that is missed after its domain was hit is missed for that; any other fault is its own.
        hit = fault.rule in ABSENCE_RULES and key and is_within(fault.opened_at, begins[key])
        own = ("node", fault.node)
        piles.setdefault(key if hit and key else own, Pile()).roots.append(fault)
    return piles


def follow_nodes(faults: Iterable[Fault], piles: Piles, told: frozenset[str]) -> None:
    """Hang each warning under the incident of its node, or of its node's domain, in the time that follows."""
    by_node: dict[str, list[Pile]] = {}
    for (scope, _), pile in piles.items():
        if scope not in (PIPELINE, "job"):
            for node in pile.nodes:
                by_node.setdefault(node, []).append(pile)
    had = {fault.episode for pile in piles.values() for fault in pile.roots}
    for fault in faults:
        if (
            fault.episode in had
            or fault.episode in told
            or class_of(fault) not in ("warning", "other")
        ):
            continue
        for pile in by_node.get(fault.node, ()):
            if is_within(fault.opened_at, pile.begin):
                pile.followed.append(fault)
                break


def is_within(at: datetime, begin: datetime) -> bool:
    """Whether something may be a consequence by its time: from 120 s before to 10 minutes after."""
    return begin - SAME_FAILURE <= at <= begin + timedelta(seconds=FOLLOWS_SECONDS)


def measure_standing(world: World, piles: Piles) -> None:
    """Give each pile of an open domain's incident its domain, with the nodes that it has hit so far."""
    for one in world.standing:
        pile = piles.get(one.key)
        if one.scope not in DOMAIN_SCOPES or pile is None or pile.domain is not None:
            continue
        family = family_of_rule(one.cause) or "silence"
        hit = frozenset(pile.nodes | one.nodes)
        places = {
            node: world.nodes[node].places.get(one.scope) for node in hit if node in world.nodes
        }
        elsewhere = {
            fault.node
            for fault in world.faults
            if family in families_of(fault)
            and fault.node not in hit
            and fault.opened_at >= one.opened_at - SAME_FAILURE
        }
        pile.domain = measure(
            one.scope,
            one.subject,
            family=family,
            hit=frozenset(node for node in hit if places.get(node, one.subject) == one.subject),
            start=one.opened_at,
            end=max(fault.opened_at for fault in pile.roots),
            elsewhere=len(elsewhere),
            sizes=world.sizes,
            nodes=world.nodes,
        )


def _outgrown(faults: Sequence[Fault], world: World) -> frozenset[Key]:
    """Domains with an incident whose nodes turn out to be only a part of a wider one's.

    Polls spread what a switch does to its nodes: the first that are seen may share a rack or more.
    """
    narrow = [one for one in world.standing if one.scope in DOMAIN_SCOPES]
    if not narrow:
        return frozenset()
    wider = find_domains(
        [fault for fault in faults if families_of(fault)],
        world.nodes,
        sizes=world.sizes,
        nodes_known=world.nodes_known,
    )
    return frozenset(
        one.key
        for one in narrow
        for domain in wider
        if one.nodes < domain.nodes and (family_of_rule(one.cause) or "") == domain.family
    )


def _stay_in_domains(
    faults: Sequence[Fault], homes: Homes, piles: Piles, outgrown: frozenset[Key]
) -> list[Fault]:
    left = []
    for fault in faults:
        home = homes.get(fault.episode)
        if home is None or home.scope not in DOMAIN_SCOPES or home.key in outgrown:
            left.append(fault)
        elif class_of(fault) in ("hardware", "absence") or _is_of(home.cause, fault):
            piles.setdefault(home.key, Pile()).roots.append(fault)
        else:
            left.append(fault)
    return left


def _join_domains(faults: Sequence[Fault], world: World, piles: Piles) -> list[Fault]:
    standing = [one for one in world.standing if one.key in piles]
    if not standing:
        return list(faults)
    latest = {one.key: max(fault.opened_at for fault in piles[one.key].roots) for one in standing}
    left = []
    for fault in sorted(faults, key=lambda fault: fault.opened_at):
        node = world.nodes.get(fault.node)
        home = next(
            (
                one
                for one in standing
                if node is not None
                and node.places.get(one.scope) == one.subject
                and _is_of(one.cause, fault)
                and fault.opened_at - latest[one.key] <= timedelta(seconds=JOIN_SECONDS)
            ),
            None,
        )
        if home is None:
            left.append(fault)
            continue
        piles[home.key].roots.append(fault)
        latest[home.key] = max(latest[home.key], fault.opened_at)
    return left


def _pile_shared(faults: Sequence[Fault], world: World, piles: Piles) -> list[Fault]:
    missed = _missed(faults)
    mass = frozenset[str]().union(*_masses(missed, world).values())
    gone = missed[SILENT].keys() & missed[NOT_READY].keys()
    sharing = [
        fault
        for fault in faults
        if families_of(fault)
        and (fault.rule not in ABSENCE_RULES or fault.node not in mass or fault.node in gone)
    ]
    taken: set[str] = set()
    for domain in find_domains(
        sharing, world.nodes, sizes=world.sizes, nodes_known=world.nodes_known
    ):
        of_mass = domain.family in ("silence", "power") and domain.nodes & mass
        if of_mass and domain.ratio < GONE_RATIO:
            continue
        pile = piles.setdefault((domain.kind, domain.name), Pile())
        pile.domain = pile.domain or domain
        for fault in sharing:
            is_its = fault.node in domain.nodes and domain.family in families_of(fault)
            # A node's family fault from another time is its own.
            begin = domain.start - SAME_FAILURE
            if is_its and fault.episode not in taken and begin <= fault.opened_at:
                pile.roots.append(fault)
                taken.add(fault.episode)
    return [fault for fault in faults if fault.episode not in taken]


def _pile_masses(
    faults: Sequence[Fault], world: World, homes: Homes, piles: Piles, now: datetime
) -> list[Fault]:
    missed = _missed(faults)
    masses = _masses(missed, world)
    agents, kubelets = masses[SILENT], masses[NOT_READY]
    same = bool(agents) and 2 * len(agents & kubelets) >= len(kubelets) > 0
    taken: set[str] = set()
    for rule, subject in ((SILENT, AGENTS), (NOT_READY, KUBELETS)):
        key = (PIPELINE, subject)
        late = [
            fault
            for fault in faults
            if fault.rule in ABSENCE_RULES
            and (home := homes.get(fault.episode)) is not None
            and home.key == key
        ]
        members = [missed[rule][node] for node in masses[rule]]
        if members:
            target = (PIPELINE, AGENTS) if same else key
            pile = piles.setdefault(target, Pile())
            pile.is_over = False
            fresh = {fault.episode: fault for fault in (*members, *late)}
            pile.roots.extend(fault for name, fault in fresh.items() if name not in taken)
            taken |= fresh.keys()
        else:
            ended_at = next((one.ended_at for one in world.standing if one.key == key), None)
            late = [fault for fault in late if fault.episode not in taken]
            if late and is_returning(ended_at, now):
                piles.setdefault(key, Pile(is_over=True)).roots.extend(late)
                taken |= {fault.episode for fault in late}
    return [fault for fault in faults if fault.episode not in taken]


def _missed(faults: Iterable[Fault]) -> dict[str, dict[str, Fault]]:
    missed: dict[str, dict[str, Fault]] = {SILENT: {}, NOT_READY: {}}
    for fault in faults:
        if fault.rule in ABSENCE_RULES:
            missed[fault.rule].setdefault(fault.node, fault)
    return missed


def _masses(missed: Mapping[str, Mapping[str, Fault]], world: World) -> dict[str, frozenset[str]]:
    return {
        rule: find_mass_silence(
            {node: fault.opened_at for node, fault in by_node.items()},
            nodes_total=world.nodes_heard,
        )
        for rule, by_node in missed.items()
    }


def _is_of(cause: str, fault: Fault) -> bool:
    return (family_of_rule(cause) or "") in families_of(fault)
