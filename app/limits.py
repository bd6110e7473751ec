"""How many GPU nodes may be out of service at once, and how many may be taken out in an hour.

The limits hold for force as well. They are counted on what the cluster says now: foreign cordons and
nodes that are NotReady are out of service too, and so are the nodes of operations that were accepted
and have not been cordoned yet. The caller counts and accepts in one writing transaction, so that two
requests can't both take the last place.

Defaults (settings; facts/safety-and-peers.md, acceptance 1 and 2): 10 % of GPU nodes at once, never
fewer than 51 % usable, and the lower of 2 % and 10 nodes an hour. A quarter of a block of the topology,
a judgement: what is left of it must still hold a job that wants one domain.

A share is rounded down for the stock, the floor and a block, and up for the rate, and is never less
than one node, as long as the site has not set it to 0: on a cluster of four nodes, 10 % is no whole
node, and a person must still be able to take one of the four out. One more than that is refused. A node
that is out of service already does not count as taken out, so a NotReady or foreign-cordoned node may
always be drained as far as stock, floor and block are concerned.

A person who types a limit's name goes past it (acceptance 4); only the floor is passed by nothing. A
person's cordon that evicts nothing is told of the limits, and refused by none (acceptance 1). A node that
joins is not out of service: it has never been in it (acceptance 14).
"""

import math
from collections.abc import Iterable, Mapping, Set
from datetime import datetime

import msgspec

from k8s.objects import GPU_RESOURCE, Node, condition, is_ready, parse_quantity
from k8s.view import ClusterView

RATE_WINDOW_SECONDS = 3600.0
"""Window of the rate limit (facts/safety-and-peers.md, acceptance 2: an hour)."""

JOINING_SECONDS = 600.0
"""A node that is not usable yet is called joining for so long after it was made: GPU Operator's pods take
some minutes to bring drivers up. A judgement."""

FIRST_WORD_SECONDS = 60.0
"""A node's first word on its readiness comes with its registration, or within the node controller's grace (40 s)."""

NEVER_HEARD = (
    "NodeStatusNeverUpdated"  # the node controller's reason, for a kubelet that never spoke
)

_SOME = frozenset(str(number) for number in range(1, 17))

GPU_COUNT_LABEL = "nvidia.com/gpu.count"


class LimitSettings(msgspec.Struct, frozen=True):
    """What the site allows; see app.settings."""

    max_unavailable_nodes_ratio: float = 0.10
    max_drains_per_hour: int = 10
    max_drains_per_hour_ratio: float = 0.02
    min_usable_nodes_ratio: float = 0.51
    max_unavailable_block_nodes_ratio: float = 0.25
    block_label: str | None = None  # node label that names the block; None: blocks are not known


class LimitLine(msgspec.Struct, frozen=True):
    """One limit: how many nodes it allows, how many count now and would count after.

    remaining: how many more it allows now. passable: a person may type its name to go past it; passed:
    one did.
    """

    name: str  # stock, floor, rate, block, topology
    limit: int
    now: int
    after: int
    message: str
    remaining: int = 0
    passable: bool = True
    passed: bool = False

    @property
    def is_over(self) -> bool:
        """True when it would be exceeded."""
        return self.after > self.limit


class Limits(msgspec.Struct, frozen=True):
    """verdict: ok, warned (nothing would be left after this, or one is passed), refused."""

    verdict: str
    lines: tuple[LimitLine, ...]

    @property
    def refusal(self) -> str:
        """The sentences of the limits that refuse, "" when none does."""
        return " ".join(line.message for line in self.lines if line.is_over and not line.passed)


def judge_lines(
    lines: Iterable[LimitLine], *, typed: Set[str] = frozenset(), warn_only: bool = False
) -> Limits:
    """The verdict over limits; typed: names of those that a person has typed to go past them."""
    judged = tuple(
        msgspec.structs.replace(
            line,
            remaining=max(0, line.limit - line.now),
            passed=line.is_over and (warn_only or (line.passable and line.name in typed)),
        )
        for line in lines
    )
    if any(line.is_over and not line.passed for line in judged):
        return Limits("refused", judged)
    tight = any(line.after >= line.limit for line in judged)
    return Limits("warned" if tight else "ok", judged)


def is_gpu_node(node: Node) -> bool:
    """True for a node that has, or had before it failed, GPUs to offer."""
    for amounts in (node.status.capacity, node.status.allocatable):
        amount = amounts.get(GPU_RESOURCE)
        # A plain number, as device plugins write it, need not be parsed: this is asked of every node each time.
        if amount and (str(amount) in _SOME or parse_quantity(amount) > 0):
            return True
    return node.metadata.labels.get(GPU_COUNT_LABEL, "0") not in ("", "0")


def is_joining(node: Node, now: datetime) -> bool:
    """True for a new node that has never been Ready, as its condition tells."""
    made_at = node.metadata.creation_timestamp
    if made_at is None or (now - made_at).total_seconds() >= JOINING_SECONDS or is_ready(node):
        return False
    ready = condition(node.status.conditions, "Ready")
    if ready is None:
        return True
    if ready.status == "Unknown":
        return ready.reason == NEVER_HEARD
    # It was False from the start: a node that failed later has changed since it was made.
    changed_at = ready.last_transition_time
    return changed_at is not None and (changed_at - made_at).total_seconds() < FIRST_WORD_SECONDS


def out_of_service(view: ClusterView, held: Iterable[str] = (), *, now: datetime) -> set[str]:
    """GPU nodes that take no new work: cordoned by anybody, NotReady, or held by an accepted operation."""
    out = {
        name
        for name, node in view.nodes.items()
        if (node.spec.unschedulable or not is_ready(node))
        and is_gpu_node(node)
        and not is_joining(node, now)
    }
    return out | {
        name for name in held if (node := view.nodes.get(name)) is not None and is_gpu_node(node)
    }


def judge_limits(
    nodes: Set[str],
    *,
    view: ClusterView,
    held: Set[str],
    taken_in_window: int,
    settings: LimitSettings,
    now: datetime,
    typed: Set[str] = frozenset(),
    more: Iterable[LimitLine] = (),
    warn_only: bool = False,
) -> Limits:
    """Whether these nodes may be taken out of service now.

    held: nodes of open operations; taken_in_window: nodes that were taken out within
    RATE_WINDOW_SECONDS, as the store says, so that a restart forgets nothing. typed: names of limits
    that a person goes past; more: lines of limits that are judged elsewhere. warn_only: a person cordons
    and evicts nothing.
    """
    wanted = {name for name in nodes if name in view.nodes and is_gpu_node(view.nodes[name])}
    out = out_of_service(view, held, now=now)
    fleet = {name: node for name, node in view.nodes.items() if is_gpu_node(node)}
    total = sum(
        1
        for name, node in fleet.items()
        if name in out or name in wanted or not is_joining(node, now)
    )
    lines = (
        _stock(wanted, out=out, total=total, settings=settings),
        _floor(wanted, out=out, total=total, settings=settings),
        *_blocks(wanted, out=out, fleet=fleet, settings=settings),
        _rate(len(wanted), taken=taken_in_window, total=total, settings=settings),
        *more,
    )
    return judge_lines(lines, typed=typed, warn_only=warn_only)


def _share(ratio: float, total: int, *, up: bool) -> int:
    if ratio <= 0:
        return 0
    # The guard keeps 0.1 x 30 at 3 where binary fractions say 3.0000000000000004.
    exact = round(ratio * total, 9)
    return max(1, math.ceil(exact) if up else math.floor(exact))


def _stock(wanted: set[str], *, out: set[str], total: int, settings: LimitSettings) -> LimitLine:
    limit = _share(settings.max_unavailable_nodes_ratio, total, up=False)
    now, after = len(out), len(out | wanted)
    if after == now:
        # Nothing gets worse: the nodes are out of service already.
        return LimitLine(
            "stock",
            max(limit, after),
            now,
            after,
            f"{now} of {total} GPU nodes are out of service, these among them.",
        )
    said = f"{now} of {total} GPU nodes are out of service; with these it would be {after}, and {limit} are allowed at once"
    end = (
        "."
        if after <= limit
        else ": bring nodes back first, or raise PITWALL_MAX_UNAVAILABLE_NODES_RATIO."
    )
    return LimitLine("stock", limit, now, after, said + end)


def _floor(wanted: set[str], *, out: set[str], total: int, settings: LimitSettings) -> LimitLine:
    limit = _share(1 - settings.min_usable_nodes_ratio, total, up=False)
    now, after = len(out), len(out | wanted)
    if after == now:
        limit = max(limit, after)
    said = f"{total - after} of {total} GPU nodes would stay usable, and {total - limit} must"
    end = (
        "."
        if after <= limit
        else ": no word passes this one; bring nodes back first, or lower PITWALL_MIN_USABLE_NODES_RATIO."
    )
    return LimitLine("floor", limit, now, after, said + end, passable=False)


def _blocks(
    wanted: set[str], *, out: set[str], fleet: Mapping[str, Node], settings: LimitSettings
) -> list[LimitLine]:
    """A line a block that loses a node. fleet: the GPU nodes by name."""
    label = settings.block_label
    if label is None or not wanted:
        return []
    concerned = {fleet[name].metadata.labels.get(label) for name in wanted}
    blocks: dict[str, set[str]] = {}
    for name, node in fleet.items():
        block = node.metadata.labels.get(label)
        if block and block in concerned:
            blocks.setdefault(block, set()).add(name)
    return [
        _block(block, wanted & names, out=out & names, total=len(names), settings=settings)
        for block, names in sorted(blocks.items())
        if (wanted & names) - out
    ]


def _block(
    block: str, wanted: set[str], *, out: set[str], total: int, settings: LimitSettings
) -> LimitLine:
    limit = _share(settings.max_unavailable_block_nodes_ratio, total, up=False)
    now, after = len(out), len(out | wanted)
    said = f"{now} of {total} GPU nodes of block {block} are out of service; with these it would be {after}, and {limit} are allowed"
    end = (
        "."
        if after <= limit
        else ": bring nodes of it back first, or raise PITWALL_MAX_UNAVAILABLE_BLOCK_NODES_RATIO."
    )
    return LimitLine("block", limit, now, after, said + end)


def _rate(wanted: int, *, taken: int, total: int, settings: LimitSettings) -> LimitLine:
    limit = min(
        settings.max_drains_per_hour, _share(settings.max_drains_per_hour_ratio, total, up=True)
    )
    after = taken + wanted
    said = f"{taken} other GPU nodes were taken out within the last hour; with these it would be {after}, and {limit} are allowed"
    end = (
        "."
        if after <= limit
        else ": wait, or raise PITWALL_MAX_DRAINS_PER_HOUR and PITWALL_MAX_DRAINS_PER_HOUR_RATIO."
    )
    return LimitLine("rate", limit, taken, after, said + end)
