"""The worker's side of nodes' states: what was, what is seen, and what follows, kept between looks.

The rules are pure (app/operations/service.py, collectors/planned.py); here is the memory they need. It
is filled from the store when a worker starts, and is given up when another worker may have written.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection

from app.operations.service import (
    IN_SERVICE,
    PROBATION,
    UNDER_REPAIR,
    Holding,
    Repair,
    Seen,
    Service,
    next_service,
    probation_ends_at,
)
from app.settings import Settings
from app.store.writes.service import Kept, Standing, read_kept, store_standings
from collectors.planned import (
    BEING_ADDED,
    REBOOTING,
    SHUTTING_DOWN,
    Absence,
    AbsenceFacts,
    judge_absence,
    kept_absence,
    may_be_planned,
)
from k8s.nodes import read_hold
from k8s.objects import Node, gpu_request, is_ready, is_terminal
from k8s.view import ClusterView

_PLAIN = Service()


class NodeState(msgspec.Struct, frozen=True):
    """All that a look at a node came to, and what the next one compares with."""

    uid: str
    boot_id: str
    service: Service
    absence: Absence
    reported: bool
    keeps_repair: bool

    @property
    def standing(self) -> Standing:
        """What the store is to remember of it."""
        return Standing(
            self.uid,
            self.service.owes_probation,
            self.service.clean_since,
            self.absence.reason,
            self.absence.since,
            self.keeps_repair,
        )


class NodeStates:
    """Remembers each node's state between looks. Used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._cluster = settings.cluster
        self._probation_seconds = settings.probation_seconds
        self._silence = timedelta(seconds=settings.silence_seconds)
        self.forget()

    def forget(self) -> None:
        """Another worker may have written since: the next reading starts from the store."""
        self._states: dict[str, NodeState] | None = None
        self._kept: dict[str, Kept] = {}
        self._silent: dict[str, datetime | None] = {}
        self._due_at: datetime | None = None
        self._moved = False

    def read(self, connection: Connection, view: ClusterView, now: datetime) -> bool:
        """Reads what people, agents and earlier workers have left; True when a look is due for it."""
        kept = read_kept(connection, self._cluster, whole=self._states is None)
        # Who may begin to be away on purpose: whether it had fallen silent before must be known then.
        others = [
            name for name, node in view.nodes.items() if name not in kept and may_be_planned(node)
        ]
        if others and self._states is not None:
            kept |= read_kept(connection, self._cluster, names=others)
        silent: dict[str, datetime | None] = {
            name: row.observed_at
            for name, row in kept.items()
            if row.observed_at is not None and now - row.observed_at > self._silence
        }
        # Reports come every few seconds: that they go on is no news.
        if silent != self._silent or _told(kept) != _told(self._kept):
            self._moved = True  # until a look at it has been stored
        self._kept, self._silent = kept, silent
        return self._moved or (self._due_at is not None and now >= self._due_at)

    def look(
        self,
        view: ClusterView,
        now: datetime,
        *,
        open_holdings: Mapping[str, Holding],
        ended_holdings: Mapping[str, Holding],
    ) -> dict[str, NodeState]:
        """The state of every node of the view now. open_holdings: by node; ended_holdings: by operation
        id and node, joined by a slash. Nothing is remembered until `remember`."""
        found = {}
        for name, node in view.nodes.items():
            if name not in open_holdings and (plain := self._plain(name, node)) is not None:
                found[name] = plain
                continue
            hold = read_hold(node.metadata)
            ended = ended_holdings.get(f"{hold.operation}/{name}") if hold is not None else None
            found[name] = self._state_of(node, view, now, open_holdings.get(name), ended)
        return found

    def changed(self, states: Mapping[str, NodeState]) -> dict[str, Standing]:
        """What the store does not know yet of these states."""
        return {
            name: standing
            for name, state in states.items()
            if not self._is_stored(name, standing := state.standing)
        }

    def store(self, connection: Connection, standings: Mapping[str, Standing]) -> None:
        """Writes what changed, in the caller's transaction."""
        store_standings(connection, self._cluster, standings)

    def remember(self, states: dict[str, NodeState]) -> None:
        """These states are stored: the next look starts from them."""
        self._states, self._moved = states, False
        ends = [
            end
            for state in states.values()
            for end in (
                probation_ends_at(state.service, self._probation_seconds),
                state.absence.ends_at,
            )
            if end is not None
        ]
        self._due_at = min(ends, default=None)

    def _plain(self, name: str, node: Node) -> NodeState | None:
        """The state before, where nothing can have changed it: most nodes at most looks (of 43,750: 0.05 s, else 0.57 s)."""
        before = self._states.get(name) if self._states is not None else None
        if (
            before is None
            or not before.reported
            or before.service != _PLAIN
            or before.absence.since is not None
            or name in self._kept
            or before.uid != node.metadata.uid
            or before.boot_id != node.status.node_info.boot_id
            or may_be_planned(node)
            or not is_ready(node)
        ):
            return None
        return before

    def _state_of(
        self,
        node: Node,
        view: ClusterView,
        now: datetime,
        open_holding: Holding | None,
        ended_holding: Holding | None,
    ) -> NodeState:
        name, uid = node.metadata.name, node.metadata.uid
        before = self._before(name, uid)
        kept = self._kept.get(name)
        if kept is not None and kept.uid != uid:
            kept = None
        gpu_pods = sum(1 for pod in view.pods_on(name) if not is_terminal(pod) and gpu_request(pod))
        silent_since = self._silent.get(name) if kept is not None else None
        service = next_service(
            self._with_word(before, kept),
            Seen(
                node,
                open_holding,
                ended_holding,
                repair=Repair(kept.repair_by, kept.repair_note or "")
                if kept is not None and kept.repair_by
                else None,
                health=kept.health if kept is not None else "Unknown",
                health_reason=kept.health_reason if kept is not None else "",
                health_since=kept.health_since if kept is not None else None,
                heard=kept is not None and kept.observed_at is not None and silent_since is None,
                gpu_pods=gpu_pods > 0,
            ),
            now=now,
            probation_seconds=self._probation_seconds,
        )
        reported = self._has_reported(node, before, kept)
        absence = judge_absence(
            AbsenceFacts(
                node,
                gpu_pods=gpu_pods,
                silent_since=silent_since,
                reported=reported,
                booted_at=self._booted_at(node, before, now),
                repair_by=kept.repair_by
                if kept is not None and service.state == UNDER_REPAIR
                else None,
                before=before.absence if before is not None else Absence(),
            ),
            now,
        )
        if absence.overdue:
            reason = "; ".join(part for part in (service.reason, absence.overdue) if part)
            service = msgspec.structs.replace(service, reason=reason)
        return NodeState(
            uid,
            node.status.node_info.boot_id,
            service,
            absence,
            reported,
            # The word was about the machine under this object: one made anew under the name is another.
            keeps_repair=before is not None and service.state not in (IN_SERVICE, PROBATION),
        )

    def _before(self, name: str, uid: str) -> NodeState | None:
        """What was, of this very node object."""
        if self._states is not None:
            state = self._states.get(name)
            return state if state is not None and state.uid == uid else None
        kept = self._kept.get(name)
        if kept is None or kept.uid != uid:
            return None
        service = Service(
            kept.service,
            operation_id=kept.operation_id,
            owes_probation=bool(kept.owes_probation),
            clean_since=kept.clean_since,
        )
        absence = kept_absence(kept.planned, kept.planned_since)
        reported = kept.observed_at is not None
        return NodeState(uid, "", service, absence, reported, keeps_repair=True)

    def _with_word(self, before: NodeState | None, kept: Kept | None) -> Service | None:
        """The state before, with a person's word on it: a probation that was ended is owed no more."""
        if before is None:
            return None
        service = before.service
        if service.state == PROBATION and kept is not None and kept.owes_probation is False:
            return msgspec.structs.replace(service, owes_probation=False)
        return service

    def _has_reported(self, node: Node, before: NodeState | None, kept: Kept | None) -> bool:
        """Whether this node object was ever heard; reports from before it was made do not count."""
        if before is not None and before.reported:
            return True
        if kept is None or kept.observed_at is None:
            return False
        created = node.metadata.creation_timestamp
        return created is None or kept.observed_at >= created

    def _booted_at(self, node: Node, before: NodeState | None, now: datetime) -> datetime | None:
        """When the node was last seen to have booted anew while it was cordoned or shutting down."""
        if before is None:
            return None
        boot_id = node.status.node_info.boot_id
        other = before.boot_id and boot_id and boot_id != before.boot_id
        meant = node.spec.unschedulable or before.absence.kind == SHUTTING_DOWN
        if other and meant:
            return now
        return before.absence.since if before.absence.kind == REBOOTING else None

    def _is_stored(self, name: str, standing: Standing) -> bool:
        if self._states is not None:
            state = self._states.get(name)
            return state is not None and state.standing == standing
        kept = self._kept.get(name)
        if kept is None or kept.uid != standing.uid:
            return kept is None and not standing.owes_probation and standing.planned_since is None
        return (
            bool(kept.owes_probation) == standing.owes_probation
            and (kept.clean_since, kept.planned, kept.planned_since)
            == (standing.clean_since, standing.planned, standing.planned_since)
            and (standing.keeps_repair or kept.repair_by is None)
        )


def _told(kept: Mapping[str, Kept]) -> dict[str, Kept]:
    """What of it may change a state: reports that go on are no news, health only to who is on Probation."""
    told = {}
    for name, row in kept.items():
        if not (row.planned or "").startswith(BEING_ADDED):  # whose first report ends that
            row = msgspec.structs.replace(row, observed_at=None)
        if row.service != PROBATION and row.owes_probation is None:
            row = msgspec.structs.replace(row, health="", health_reason="", health_since=None)
        told[name] = row
    return told
