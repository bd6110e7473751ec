"""Children that hang, are killed, or cannot be killed. The kernel's side is played here: no test
can make a process that SIGKILL does not end."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

from collectors.child import Gone
from collectors.inventory import Inventory
from collectors.nvml_source import Child, NvmlSource, OnTold
from collectors.poller import Answer, Failure, NvmlXid, Ready
from collectors.readings import Poll

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AGENT_MODULES = "import sys, collectors.agent; print(*sorted(sys.modules))"


class StuckChild:
    """A process that answers when told to, and ends only when the kernel lets it go."""

    def __init__(self, on_told: OnTold, made: list[StuckChild], *, killable: bool) -> None:
        self.alive = True
        self.asked = 0
        self.killable = killable
        made.append(self)

    def start(self, inventory: Inventory, *, slow_interval_seconds: float) -> None:
        return None

    def ask(self) -> int:
        self.asked += 1
        return self.asked

    def is_alive(self) -> bool:
        return self.alive

    def stop(self) -> bool:
        if self.killable:
            self.alive = False
        return not self.alive


class Kernel:
    """A source and the processes it made."""

    def __init__(self, *, killable: bool) -> None:
        self.children: list[StuckChild] = []
        self.killable = killable
        self.seconds = 0.0
        self.source = NvmlSource(
            lambda child, message: None,
            timeout_seconds=15,
            poll_interval_seconds=5,
            slow_interval_seconds=15,
            make_child=lambda on_told: StuckChild(on_told, self.children, killable=self.killable),
        )

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.seconds += 1
            self.source.keep(
                Inventory(), at=self.seconds, now=START + timedelta(seconds=self.seconds)
            )

    def tell(self, child: Child, message: object) -> bool:
        return self.source.hear(
            child,
            message,  # type: ignore[arg-type]
            at=self.seconds,
            now=START + timedelta(seconds=self.seconds),
        )

    def answer(self, child: StuckChild) -> bool:
        poll = Poll(at=START, driver_version=None, gpu_count=0, gpus=())
        return self.tell(child, Answer(child.asked, poll))

    @property
    def alive(self) -> int:
        return sum(child.alive for child in self.children)


def test_a_child_that_answers_is_asked_each_interval() -> None:
    kernel = Kernel(killable=True)
    kernel.pass_time(1)
    (child,) = kernel.children
    kernel.tell(child, Ready())
    for _ in range(60):
        kernel.pass_time(1)
        if child.asked > kernel.source.polls_total:
            assert kernel.answer(child)
    assert kernel.source.polls_total == 12
    assert kernel.source.state is not None
    assert kernel.source.state.answering


def test_a_hung_child_is_replaced_with_a_growing_pause() -> None:
    kernel = Kernel(killable=True)
    kernel.pass_time(600)
    assert kernel.alive <= 1
    assert 6 <= len(kernel.children) <= 12
    assert kernel.source.replaced_total >= 6
    assert kernel.source.state is not None
    assert kernel.source.state.message == "NVML does not answer for 599 s"


def test_no_more_than_one_stuck_child_is_ever_left_behind() -> None:
    kernel = Kernel(killable=False)
    kernel.pass_time(3600)
    assert len(kernel.children) == kernel.alive == 2
    # The kernel lets the first go: now one more may be tried, and hangs as well.
    first, second = kernel.children
    first.alive = False
    kernel.tell(first, Gone(-9))
    kernel.pass_time(120)
    assert (len(kernel.children), kernel.alive) == (3, 2)
    # And the second: the one after it finds a driver that answers.
    second.alive = False
    kernel.tell(second, Gone(-9))
    while len(kernel.children) == 3:
        kernel.pass_time(1)
    last = kernel.children[3]
    kernel.tell(last, Ready())
    kernel.pass_time(1)
    assert kernel.answer(last)
    assert kernel.source.state is not None
    assert kernel.source.state.answering


def test_a_stuck_child_that_wakes_up_late_is_not_believed_when_it_was_given_up() -> None:
    kernel = Kernel(killable=True)
    kernel.pass_time(30)
    first, second = kernel.children[:2]
    assert not kernel.answer(first)
    kernel.tell(second, Ready())
    kernel.pass_time(1)
    assert kernel.answer(second)


def test_a_refusal_is_told_in_nvmls_words_and_tried_again_later() -> None:
    kernel = Kernel(killable=True)
    kernel.pass_time(1)
    (child,) = kernel.children
    kernel.tell(child, Failure("NVML cannot be initialised: Driver Not Loaded"))
    assert kernel.source.state is not None
    assert kernel.source.state.message == "NVML cannot be initialised: Driver Not Loaded"
    kernel.pass_time(3)
    assert len(kernel.children) == 1
    kernel.pass_time(5)
    assert len(kernel.children) == 2


def test_an_xid_says_nothing_about_answering() -> None:
    kernel = Kernel(killable=True)
    kernel.pass_time(1)
    assert kernel.tell(kernel.children[0], NvmlXid(START, 79, None, None))
    assert kernel.source.state is None


def test_the_agent_loads_neither_the_page_nor_the_store_nor_what_it_may_not_need() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", AGENT_MODULES], capture_output=True, check=True, text=True
    )
    loaded = {name.partition(".")[0] for name in answer.stdout.split()}
    assert "pynvml" in loaded
    assert not loaded & {
        *("streamlit", "plotly", "sqlmodel", "sqlalchemy", "pandas", "numpy"),
        *("app", "kubernetes", "grpc", "requests", "prometheus_api_client"),
    }
