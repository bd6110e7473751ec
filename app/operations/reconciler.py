"""Carries operations out: reads the open ones, asks the pure next step, claims, calls, stores the answer.

A worker can die between any two of these; the next look goes on from what the store and the cluster
say. Steps are claimed together with the lease's epoch, so that two workers never take one step.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta

import msgspec
import structlog
from sqlalchemy import Engine, func, select

from app.operations import ledger
from app.operations.authority import Authority, People
from app.operations.calls import Answer, FencedConnection, carry_out
from app.operations.lease import LeaseKeeper, LeaseLost
from app.operations.model import (
    RESTARTING,
    SETTLED,
    Act,
    Blocked,
    Ended,
    Memory,
    Observed,
    Offer,
    Operation,
    Step,
    Wait,
)
from app.operations.pause import read_pause
from app.operations.reconciliation import next_step, takes_back
from app.operations.survey import fresh
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import Gpu, Node
from app.store.tables import Operation as OperationTable
from k8s.client import Connection
from k8s.view import ClusterView

log = structlog.get_logger()

ROUNDS_A_TICK = 50
"""Most rounds of steps that one operation takes in a tick, so that none starves the others."""

CALLS_AT_ONCE = 16
Boundary = Callable[[str, Operation, Step], None]

_gpu = table_of(Gpu)
_node = table_of(Node)
_operation = table_of(OperationTable)


class Reconciler:
    """Owns the threads in which steps are carried out; one a worker."""

    def __init__(
        self,
        engine: Engine,
        cluster: str,
        *,
        connection: Connection,
        view: Callable[[], ClusterView],
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
        calls_at_once: int = CALLS_AT_ONCE,
        at_boundary: Boundary | None = None,
        authority: Authority | None = None,
    ) -> None:
        """calls_at_once: 1 makes every call in the caller's thread. authority: none reviews nobody.

        at_boundary: told "claimed" before a step's call and "called" after it, before its answer is
        stored; what it raises ends the tick there.
        """
        self._engine = engine
        self._cluster = cluster
        self._connection = FencedConnection(connection, lease.require)
        self._view = view
        self._lease = lease
        self._clock = clock
        self._at_boundary = at_boundary
        self._authority = authority
        self._pool = (
            ThreadPoolExecutor(calls_at_once, thread_name_prefix="step")
            if calls_at_once > 1
            else None
        )
        self._looks: dict[str, tuple] = {}
        self._ended: set[str] = set()
        self._failing = False

    def close(self) -> None:
        """Waits for the calls that are under way and ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._authority is not None:
            self._authority.close()

    def tick(self) -> int:
        """One look at every open operation, taking the steps that are due. Returns how many are open.

        Does nothing while this worker does not hold the lease. Raises StoreError.
        """
        if self._lease.held() is None:
            return 0
        with read(self._engine) as connection:
            operations = ledger.open_operations(connection, self._cluster)
            pause = read_pause(connection, self._cluster)
        if not operations:
            self._looks.clear()
            return 0
        view = self._view()
        nodes = {node for operation in operations for node in operation.nodes}
        restarting: set[str] = set()
        for operation in operations:
            for uid, unit in operation.memory.units.items():
                if unit.verdict not in SETTLED:
                    pods = view.pods_of(uid)
                    nodes.update(pod.spec.node_name for pod in pods if pod.spec.node_name)
                    if unit.verdict == RESTARTING:
                        restarting.update(pod.metadata.uid for pod in pods)
        health = self._read_health(nodes)
        activity = self._read_activity(restarting)
        said = pause.said if pause is not None else ""
        acting: list[Operation] = list(operations)
        try:
            # Round by round: what is urgent in the last, a cordon, does not wait for all of the first.
            for _ in range(ROUNDS_A_TICK):
                again = [self._advance(each, health, activity, said) for each in acting]
                acting = [operation for operation in again if operation is not None]
                if not acting:
                    break
        except LeaseLost as lost:
            log.warning("operations pause", reason=str(lost))
        self._looks = {
            operation.id: look
            for operation in operations
            if (look := self._looks.get(operation.id)) is not None
        }
        return len(operations)

    def _advance(
        self,
        operation: Operation,
        health: Mapping[str, tuple[str, str]],
        activity: Mapping[str, float | None],
        paused: str,
    ) -> Operation | None:
        """One round of an operation; what it is now where it can go on at once, else None."""
        now = self._clock()
        view = fresh(self._view(), now)
        decision = next_step(operation, Observed(view, health, activity, paused), now)
        people: People = {}
        if isinstance(decision, Act) and self._authority is not None:
            reviewed = self._authority.review(operation, decision, view)
            decision, people = reviewed.decision, reviewed.people
        if not isinstance(decision, Act):
            self._store_look(operation, decision, now)
            return None
        if not self._take(operation, decision, view, people):
            return None
        with read(self._engine) as connection:
            return ledger.read_operation(connection, self._cluster, operation.id)

    def _take(self, operation: Operation, act: Act, view: ClusterView, people: People) -> bool:
        """Claims the steps, carries them out, stores each answer as it comes. False: look again later."""
        with write(self._engine) as connection:
            if not takes_back(operation, act.memory) and read_pause(connection, self._cluster):
                return False
            claimed = ledger.claim(
                connection,
                operation,
                act.steps,
                memory=act.memory,
                message=act.message,
                progress=act.progress,
                held=self._lease.require(),
                now=self._clock(),
            )
        self._looks.pop(operation.id, None)
        if not claimed:
            return False
        memory = act.memory
        for step, answer in self._answers(operation, act.steps, view, people):
            now = self._clock()
            outcome = _outcome(operation, step, answer)
            person = people.get((step.name, step.uid))
            author = person.author if person is not None else operation.author
            memory = _learn(memory, step, answer, now)
            with write(self._engine) as connection:
                ledger.store_answer(
                    connection,
                    operation,
                    step,
                    state=answer.state,
                    message=answer.message,
                    now=now,
                    outcome=outcome,
                    author=author,
                )
                if memory is not act.memory:
                    ledger.store_memory(connection, operation, memory, now=now)
            if outcome == "done" and self._authority is not None:
                self._authority.tell(operation, step, answer, author=author, view=view, now=now)
            log.info(
                "step",
                operation_id=operation.id,
                step=step.name,
                target=step.target,
                state=answer.state,
                message=answer.message,
            )
        return True

    def _answers(
        self, operation: Operation, steps: tuple[Step, ...], view: ClusterView, people: People
    ) -> Iterator[tuple[Step, Answer]]:
        if self._pool is None or len(steps) == 1:
            for step in steps:
                yield step, self._carry_out(operation, step, view, people)
            return
        futures: dict[Future[Answer], Step] = {
            self._pool.submit(self._carry_out, operation, step, view, people): step
            for step in steps
        }
        for future in as_completed(futures):
            yield futures[future], future.result()

    def _carry_out(
        self, operation: Operation, step: Step, view: ClusterView, people: People
    ) -> Answer:
        self._lease.require()
        connection = None
        if self._authority is not None:
            connection = self._authority.connection(step, people.get((step.name, step.uid)))
        self._tell("claimed", operation, step)
        answer = carry_out(
            step,
            operation,
            connection=connection or self._connection,
            view=view,
            has_ended=self._has_ended,
        )
        self._tell("called", operation, step)
        return answer

    def _tell(self, where: str, operation: Operation, step: Step) -> None:
        if self._at_boundary is not None:
            self._at_boundary(where, operation, step)

    def _store_look(
        self, operation: Operation, decision: Wait | Blocked | Ended, now: datetime
    ) -> None:
        state, ended = "Running", False
        choices: tuple[Offer, ...] = ()
        if isinstance(decision, Ended):
            state, ended = decision.state, True
        elif isinstance(decision, Blocked):
            state, choices = "Blocked", decision.choices
        elif operation.cancel_requested_by or decision.memory.stopped:
            state = "Cancelling"
        elif decision.held:
            state = "Waiting"
        look = (state, decision.message, choices, decision.memory, decision.progress)
        if self._looks.get(operation.id) == look:
            return
        with write(self._engine) as connection:
            stored = ledger.store_look(
                connection,
                operation,
                state=state,
                message=decision.message,
                choices=choices,
                memory=decision.memory,
                progress=decision.progress,
                held=self._lease.require(),
                now=now,
                ended=ended,
            )
        if stored:
            self._looks[operation.id] = look
        if stored and ended:
            log.info(
                "operation ended",
                operation_id=operation.id,
                kind=operation.kind,
                subject=operation.subject,
                state=state,
                message=decision.message,
            )

    def _read_activity(self, pods: set[str]) -> dict[str, float | None]:
        """Highest utilisation of the GPUs that each pod holds; a pod that no agent named is missing."""
        if not pods:
            return {}
        highest = func.max(_gpu.c.gpu_utilization_ratio)
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_gpu.c.pod_uid, highest)
                .where(_gpu.c.cluster == self._cluster, _gpu.c.pod_uid.in_(sorted(pods)))
                .group_by(_gpu.c.pod_uid)
            ).all()
        return {uid: ratio for uid, ratio in rows}  # noqa: C416

    def _read_health(self, nodes: set[str]) -> dict[str, tuple[str, str]]:
        names = sorted(nodes)
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_node.c.name, _node.c.health, _node.c.health_reason).where(
                    _node.c.cluster == self._cluster, _node.c.name.in_(names)
                )
            ).all()
        return {row.name: (row.health, row.health_reason) for row in rows}

    def _has_ended(self, operation_id: str) -> bool:
        if operation_id in self._ended:
            return True
        with read(self._engine) as connection:
            row = connection.execute(
                select(_operation.c.ended_at).where(
                    _operation.c.cluster == self._cluster, _operation.c.id == operation_id
                )
            ).first()
        ended = row is not None and row.ended_at is not None
        if ended:
            self._ended.add(operation_id)
        return ended


def _learn(memory: Memory, step: Step, answer: Answer, now: datetime) -> Memory:
    key = f"{step.name}:{step.uid}"
    retry_at = {name: at for name, at in memory.retry_at.items() if name != key}
    if answer.state == "waiting":
        retry_at[key] = now + timedelta(seconds=answer.retry_after_seconds)
    was = memory.was_unschedulable
    if answer.was_unschedulable is not None:
        was = {**was, step.node: answer.was_unschedulable}
    if retry_at == memory.retry_at and was == memory.was_unschedulable:
        return memory
    return msgspec.structs.replace(memory, retry_at=retry_at, was_unschedulable=was)


def _outcome(operation: Operation, step: Step, answer: Answer) -> str | None:
    """For the audit: a write whose answer was lost is told when it is found to have been done."""
    before = operation.step(step.name, step.uid)
    if answer.outcome is None and answer.state == "done" and before is not None:
        return "done" if before.state == "claimed" and step.name != "confirm_empty" else None
    return answer.outcome
