"""What benchmarks report: figures in a table on the terminal, and one JSON line each in the file BENCH_JSON names.

A figure with a limit fails its test when it does not keep it. Ratios are of one run, on one machine.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number. `at_most`, `at_least`: what is demanded of it."""

    bench: str
    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is as demanded; true where nothing is."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    def document(self) -> dict:
        """The figure as one JSON line holds it."""
        return {
            "bench": self.bench,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "at_most": self.at_most,
            "at_least": self.at_least,
            "kept": self.kept,
        }


@dataclass
class Figures:
    """The figures of one benchmark."""

    bench: str
    rows: list[Figure] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> Figure:
        """Note a figure: seconds "s", ratios "x", bytes "B"."""
        figure = Figure(self.bench, name, float(value), unit, at_most, at_least)
        self.rows.append(figure)
        return figure

    def report(self) -> None:
        """Print the table and append to BENCH_JSON."""
        width = max((len(figure.name) for figure in self.rows), default=0)
        print(f"\n{self.bench}")
        for figure in self.rows:
            demanded = ""
            if figure.at_most is not None:
                demanded = f"at most {_number(figure.at_most)}"
            if figure.at_least is not None:
                demanded = f"at least {_number(figure.at_least)}"
            said = "" if figure.kept else "  NOT KEPT"
            print(
                f"  {figure.name:<{width}}  {_number(figure.value):>10} {figure.unit:<6} {demanded}{said}"
            )
        path = os.environ.get("BENCH_JSON")
        if path:
            with Path(path).open("a") as lines:
                for figure in self.rows:
                    lines.write(json.dumps(figure.document()) + "\n")

    def check(self) -> None:
        """Report, then fail for every figure that is not as demanded."""
        self.report()
        broken = [figure for figure in self.rows if not figure.kept]
        assert not broken, "; ".join(
            f"{figure.name} is {_number(figure.value)} {figure.unit}" for figure in broken
        )


def seconds_of(act: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def medians(rounds: int, *acts: Callable[[], object]) -> list[float]:
    """Median seconds of each call, in turns, so that a slow moment of the machine meets all of them."""
    taken: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for times, act in zip(taken, acts, strict=True):
            times.append(seconds_of(act))
    return [statistics.median(times) for times in taken]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


__all__ = ["Figure", "Figures", "medians", "seconds_of"]
