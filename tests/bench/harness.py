"""Rows, rounds and tables.

A row is a function that gets a `Plan` and returns one or more `Table`s. It is measured in rounds: every contestant
once, then every contestant again (A B C, A B C, ...), after a warm-up round that is not counted, so that whatever
else the machine does hits all alike. What is shown is the median.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from statistics import median

PEERS = ["streamable", "aiostream", "aiometer", "mpire", "pebble", "loky", "joblib", "pypeln", "numpy", "uvloop"]
PEERS += ["distributed", "ray"]

type_of_row = Callable[["Plan"], "Table | list[Table]"]
ROWS: dict[str, tuple[str, type_of_row]] = {}


class NotYet(Exception):
    """The part of the library that the row measures does not exist."""


def row(number: str, title: str) -> Callable[[type_of_row], type_of_row]:
    """Register a function as the row of that number; what it returns gets the title."""

    def register(measure: type_of_row) -> type_of_row:
        ROWS[number] = (title, measure)
        return measure

    return register


@dataclass(frozen=True)
class Goal:
    """A figure and the bound that it should keep."""

    text: str
    figure: float
    most: float = float("inf")
    least: float = float("-inf")

    @property
    def met(self) -> bool:
        return self.least <= self.figure <= self.most

    def __str__(self) -> str:
        return f"- {self.text}: {number(self.figure)}, {'met' if self.met else '**missed**'}"


@dataclass
class Table:
    """What one kind of work came to: a figure per contestant."""

    unit: str
    figures: dict[str, float]
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    beside: str | None = None  # the contestant to which the others are set in proportion
    title: str = ""

    def __str__(self) -> str:
        base = self.figures[self.beside] if self.beside else None
        ours = {name for name in self.figures if name.startswith("inturn")}
        lines = [f"### {self.title}", ""]
        lines.append(f"| | {self.unit} |" + (f" ÷ {self.beside} |" if base else ""))
        lines.append("| --- | ---: |" + (" ---: |" if base else ""))
        for name, figure in self.figures.items():
            shown = f"**{name}**" if name in ours else name
            lines.append(f"| {shown} | {number(figure)} |" + (f" {number(figure / base)} |" if base else ""))
        lines += ["", *map(str, self.goals), *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def number(value: float) -> str:
    """Show three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{3 if 0 < abs(value) < 0.1 else digits}f}"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    quick: bool
    label: str = ""

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def race(self, contestants: dict[str, Callable[[], float]]) -> dict[str, float]:
        """Run all contestants in rounds; return each one's median figure. One that fails is left out, and said so."""
        rounds: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(self.rounds + 1):
            for name, contestant in contestants.items():
                if name not in rounds:
                    continue
                tell(f"{self.label} round {turn} of {self.rounds}: {name}")
                gc.collect()
                try:
                    figure = contestant()
                except Exception as error:
                    if name.startswith("inturn"):
                        raise
                    print(f"{name} failed: {error!r}", file=sys.stderr)
                    del rounds[name]
                    continue
                if turn:
                    rounds[name].append(figure)
        tell("")
        return {name: median(figures) for name, figures in rounds.items()}


def tell(line: str) -> None:
    """Show what is being measured, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def present(*modules: str) -> list[str]:
    """Return those of the modules that are installed."""
    return [module for module in modules if find_spec(module) is not None]


def machine() -> str:
    """Describe what the figures were measured on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in present(*PEERS))
    return f"Python {platform.python_version()}, {platform.system()}, {cpus} CPUs. {versions or 'No peer installed'}.\n"


def in_order(name: str) -> tuple[str, int]:
    """Sort P2 before P10, and rows that have no number behind those that have one."""
    letter, digits = name[:1], name[1:]
    return (letter, int(digits)) if digits.isdigit() else (name.title(), 0)


def main(argv: Iterable[str] | None = None) -> int:
    """Read the command line, measure, and print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python tests/bench", description="What inturn costs, beside its peers.")
    parser.add_argument("--rows", help=f"comma-separated, of {','.join(ROWS)} (all)")
    parser.add_argument("--rounds", type=int, help="rounds that count (5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer items and rounds: an impression, not a measurement")
    options = parser.parse_args(argv if argv is None else list(argv))
    chosen = options.rows.split(",") if options.rows else sorted(ROWS, key=in_order)
    if unknown := [name for name in chosen if name not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")

    logging.disable()  # some peers log about every item
    warnings.simplefilter("ignore")
    print(machine())
    goals: list[Goal] = []
    for name in chosen:
        title, measure = ROWS[name]
        plan = Plan(options.rounds or (2 if options.quick else 5), options.quick, name)
        try:
            tables = measure(plan)
        except NotYet as missing:
            print(f"### {name}: {title}\n\nNot there yet: {missing}.\n", flush=True)
            continue
        for table in tables if isinstance(tables, list) else [tables]:
            table.title = f"{name}: {table.title or title}"
            goals += table.goals
            print(table, flush=True)
    print(f"{sum(goal.met for goal in goals)} of {len(goals)} goals met.")
    return 0
