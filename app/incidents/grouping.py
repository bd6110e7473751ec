"""From open faults to the incidents that should be open. Pure.

First the causes on nodes (app/incidents/causes.py), then whom they hurt, then what went wrong with jobs:
hung under what hurts the same job, or an incident of the job where nothing explains it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import inf

from app.incidents.causes import (
    FOLLOWS_SECONDS,
    Homes,
    Pile,
    Piles,
    find_homes,
    follow_nodes,
    is_meant,
    measure_standing,
    pile_nodes,
)
from app.incidents.classes import (
    APPLICATION_RULES,
    INTERRUPTED,
    SAME_FAILURE,
    WEIGHT,
    class_of,
    families_of,
    order_by_cause,
    worst_of,
)
from app.incidents.domains import Domain, tell_arithmetic
from app.incidents.hurt import Pods, carry_on, find_hurt, index_pods, job_of
from app.incidents.model import (
    DOMAIN_SCOPES,
    PIPELINE,
    Evidence,
    Fault,
    HurtJob,
    Key,
    Standing,
    Trouble,
    World,
)
from app.incidents.silence import AGENTS
from app.incidents.words import (
    AGENTS_ACTION,
    KUBELETS_ACTION,
    MOST_EVIDENCE,
    RESTART_ACTION,
    domain_action,
    domain_title,
    fault_words,
    mass_title,
    node_title,
    tell_evidence,
)

MASS_CAUSES = {"agents": "mass-silence", "kubelets": "mass-not-ready"}
_FOLLOWS = timedelta(seconds=FOLLOWS_SECONDS)
_SCOPE_ORDER = {PIPELINE: 0} | dict.fromkeys(DOMAIN_SCOPES, 1) | {"node": 2, "job": 3}


def group_troubles(world: World, now: datetime) -> list[Trouble]:
    """The incidents that should be open now: the pipeline's first, then domains', nodes' and jobs'.

    Each critical or fatal fault is in exactly one, unless its node's absence is planned. What an open
    incident (`world.standing`) has told of stays with it, save a job's fault that is explained later and a
    node's that turns out to be its domain's.
    """
    homes = find_homes(world.standing)
    faults = [
        fault for fault in world.faults if not is_meant(fault, world.nodes.get(fault.node), homes)
    ]
    pods = index_pods(world.pods)
    of_nodes: list[Fault] = []
    of_jobs: list[Fault] = []
    for fault in faults:
        (of_jobs if class_of(fault) in ("job", "application") else of_nodes).append(fault)
    piles = pile_nodes(of_nodes, world, homes, now)
    _explain_jobs(of_jobs, piles, world=world, pods=pods, homes=homes, now=now)
    follow_nodes(of_nodes, piles, world.told)
    measure_standing(world, piles)
    standing = {one.key: one for one in world.standing}
    beside = _beside(of_nodes, piles)
    return [
        _trouble(key, piles[key], standing.get(key), world=world, pods=pods, beside=beside, now=now)
        for key in sorted(piles, key=lambda key: (_SCOPE_ORDER[key[0]], key))
    ]


def _explain_jobs(
    faults: Sequence[Fault],
    piles: Piles,
    *,
    world: World,
    pods: Pods,
    homes: Homes,
    now: datetime,
) -> None:
    """Put each job's and application's fault under the pile that explains it, or the job's own."""
    causes = {key: pile for key, pile in piles.items() if key[0] != PIPELINE}
    hurting = _hurting(causes, world, pods, now)
    by_node: dict[str, list[Key]] = {}
    for key, pile in causes.items():
        for node in pile.nodes:
            by_node.setdefault(node, []).append(key)
    times = {key: sorted(fault.opened_at for fault in pile.roots) for key, pile in causes.items()}
    minor: list[tuple[Key, Fault]] = []
    for fault in sorted(faults, key=lambda fault: (fault.opened_at, fault.episode)):
        uid = job_of(fault, pods)
        home = homes.get(fault.episode)
        is_job = class_of(fault) == "job" and not _is_past(fault, uid, world)
        told_elsewhere = home is not None and not _is_own_home(fault, home)
        own = ("job", uid) if uid is not None else ("node", fault.node)
        if uid is None and not fault.node:
            own = ("job", fault.episode)
        found = _explanation(fault, uid, hurting=hurting, by_node=by_node, times=times)
        if not is_job and home is None and fault.episode in world.told:
            if found is not None and fault.rule == INTERRUPTED:
                piles[found].followed.append(
                    fault
                )  # its cause was seen only after the job was back
            continue
        if found is None and told_elsewhere and home is not None:
            if not is_job and home.key not in piles:
                continue  # what it followed is over, and so is this
            # It is still a consequence of what is over: a job's fault keeps that open until it is back.
            found = home.key
        if is_job or (found is None and class_of(fault) == "job"):
            piles.setdefault(found or own, Pile()).roots.append(fault)
        elif found is not None:
            piles[found].followed.append(fault)
        elif WEIGHT.get(fault.severity, 0) >= WEIGHT["warning"]:
            is_under = own[0] == "node" and own in causes
            pile = piles.setdefault(own, Pile())
            (pile.followed if is_under else pile.roots).append(fault)
        else:
            minor.append((own, fault))
    for own, fault in minor:
        if own in piles:
            piles[own].followed.append(fault)


def _is_own_home(fault: Fault, home: Standing) -> bool:
    """Whether an open incident is of this fault's like, rather than of what it followed."""
    if home.scope in ("job", PIPELINE):
        return True
    return home.cause in APPLICATION_RULES and class_of(fault) == "application"


def _is_past(fault: Fault, uid: str | None, world: World) -> bool:
    """Whether a job that was interrupted is back, or over: then it is told and keeps nothing else open."""
    job = world.jobs.get(uid or "")
    return fault.rule == INTERRUPTED and (job is None or job.is_whole or job.is_ended)


def _hurting(
    piles: Mapping[Key, Pile], world: World, pods: Pods, now: datetime
) -> dict[str, list[tuple[Key, datetime]]]:
    """By job: what hurts it, and since when."""
    found: dict[str, list[tuple[Key, datetime]]] = {}
    for key, pile in piles.items():
        for uid, job in find_hurt(pile.roots, world, pods, now).items():
            found.setdefault(uid, []).append((key, job.since))
    for one in world.standing:
        if one.key in piles:
            for job in one.jobs:
                found.setdefault(job.uid, []).append((one.key, job.since))
    return found


def _explanation(
    fault: Fault,
    uid: str | None,
    *,
    hurting: Mapping[str, Sequence[tuple[Key, datetime]]],
    by_node: Mapping[str, Sequence[Key]],
    times: Mapping[Key, Sequence[datetime]],
) -> Key | None:
    """What hurts the job of a fault at its time: on its own node rather than another, then nearest in time."""
    candidates: list[tuple[bool, float, Key]] = []
    here = by_node.get(fault.node, ()) if fault.node else ()
    for key, since in (*hurting.get(uid or "", ()), *((key, None) for key in here)):
        nearest = _nearest(fault.opened_at, times[key])
        if since is not None and since - SAME_FAILURE <= fault.opened_at <= since + _FOLLOWS:
            nearest = min(nearest, abs((fault.opened_at - since).total_seconds()))
        if nearest < inf:
            candidates.append((key not in here, nearest, key))
    return min(candidates)[2] if candidates else None


def _nearest(at: datetime, times: Sequence[datetime]) -> float:
    """Seconds to the nearest cause of which something at that time may be a consequence, inf for none."""
    low, high = bisect_left(times, at - _FOLLOWS), bisect_right(times, at + SAME_FAILURE)
    if low >= high:
        return inf
    middle = min(max(bisect_left(times, at), low), high - 1)
    near = times[max(middle - 1, low) : min(middle + 1, high)]
    return min(abs((at - time).total_seconds()) for time in near)


def _beside(faults: Iterable[Fault], piles: Piles) -> dict[str, list[Fault]]:
    """By node: warnings that no node's incident tells of, as evidence for a job's that names the node."""
    wanted = {
        fault.node for (scope, _), pile in piles.items() if scope == "job" for fault in pile.roots
    }
    found: dict[str, list[Fault]] = {}
    for fault in faults:
        if fault.node in wanted and class_of(fault) in ("warning", "other"):
            found.setdefault(fault.node, []).append(fault)
    return found


def _trouble(
    key: Key,
    pile: Pile,
    standing: Standing | None,
    *,
    world: World,
    pods: Pods,
    beside: Mapping[str, Sequence[Fault]],
    now: datetime,
) -> Trouble:
    scope, subject = key
    roots = _ordered(scope, pile)
    first = roots[0]
    followed = sorted(pile.followed, key=lambda fault: (fault.opened_at, fault.episode))
    faults = [*roots, *followed]
    nodes = sorted(_nodes(scope, subject, pile))
    worst = worst_of(roots)
    title, cause, action = _words(scope, subject, roots, worst, pile, world)
    evidence = _evidence(scope, pile, faults, nodes, world=world, beside=beside)
    certainty, ratio = None, None
    if pile.domain is not None and scope in DOMAIN_SCOPES:
        certainty, ratio = pile.domain.certainty, round(pile.domain.ratio, 4)
        arithmetic = tell_arithmetic(pile.domain, world.nodes_known)
        if standing is not None and standing.nodes >= pile.domain.nodes and standing.certainty:
            # Nodes that are well again make it no less certain what it was.
            certainty, ratio = standing.certainty, standing.certainty_ratio
            arithmetic = list(standing.arithmetic) or arithmetic
        evidence = [*arithmetic, *evidence]
    return Trouble(
        scope=scope,
        subject=subject,
        severity=worst.severity,
        title=title,
        cause=cause,
        action=action,
        opened_at=first.opened_at,
        roots=tuple(roots),
        followed=tuple(followed),
        nodes=tuple(nodes),
        jobs=_jobs(scope, faults, standing, world=world, pods=pods, now=now),
        evidence=tuple(evidence),
        certainty=certainty,
        certainty_ratio=ratio,
        is_over=pile.is_over,
    )


def _nodes(scope: str, subject: str, pile: Pile) -> set[str]:
    if scope == "node":
        return {subject}
    if scope == "job":
        return {fault.node for fault in (*pile.roots, *pile.followed) if fault.node}
    return pile.nodes


def _ordered(scope: str, pile: Pile) -> list[Fault]:
    if scope in DOMAIN_SCOPES and pile.domain is not None:
        family = pile.domain.family
        return sorted(
            pile.roots,
            key=lambda fault: (family not in families_of(fault), fault.opened_at, fault.episode),
        )
    return order_by_cause(pile.roots)


def _words(
    scope: str,
    subject: str,
    roots: Sequence[Fault],
    worst: Fault,
    pile: Pile,
    world: World,
) -> tuple[str, str, str]:
    """Title, cause and action."""
    first = roots[0]
    if scope == PIPELINE:
        count = len({fault.node for fault in roots})
        title = mass_title(count, world.nodes_heard, since=first.opened_at, subject=subject)
        action = AGENTS_ACTION if subject == AGENTS else KUBELETS_ACTION
        return title, MASS_CAUSES[subject], action
    if scope in DOMAIN_SCOPES:
        domain: Domain | None = pile.domain
        assert domain is not None
        title = domain_title(
            scope,
            subject,
            family=domain.family,
            count=len(domain.nodes),
            since=domain.start,
        )
        return title, first.rule, domain_action(scope, domain.family)
    action = worst.action if class_of(worst) != "application" else RESTART_ACTION
    if scope == "job":
        job = world.jobs.get(subject)
        said = job.said if job is not None else subject
        message = first.message if said in first.message else f"{said}: {first.message}"
        return message, first.rule, action
    return node_title(subject, first), first.rule, action


def _evidence(
    scope: str,
    pile: Pile,
    faults: Sequence[Fault],
    nodes: Sequence[str],
    *,
    world: World,
    beside: Mapping[str, Sequence[Fault]],
) -> list[Evidence]:
    facts = [world.nodes[node] for node in nodes if node in world.nodes]
    told = tell_evidence(faults, facts if scope != PIPELINE else (), world.blind)
    if scope == "job":
        for node in nodes:
            for fault in list(beside.get(node, ()))[:MOST_EVIDENCE]:
                text = f"also open there: {fault_words(fault)}"
                told.append(Evidence(fault.opened_at, fault.source, text, fault.episode))
    return told


def _jobs(
    scope: str,
    faults: Sequence[Fault],
    standing: Standing | None,
    *,
    world: World,
    pods: Pods,
    now: datetime,
) -> tuple[HurtJob, ...]:
    if scope == PIPELINE:  # its nodes are well as far as anybody knows
        return ()
    hurt = find_hurt(faults, world, pods, now)
    return carry_on(standing.jobs if standing is not None else (), hurt, world, now)
