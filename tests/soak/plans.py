"""Plans: which run, over which items, how it ends; and what it must deliver.

A `Plan` is drawn from a random generator, and nothing else decides what is in it. The oracle, `Plan.expected`, works out
item by item what a plain loop with the same policy would deliver.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from inturn import SKIP, Failure, Retry, retry, sentinel

from .work import Item, Oops, elements_before, value_of

ANY = "any error"

THREADS = ("thread", "live", "Threads", "callable", "executor", "kept threads")
PROCESSES = ("process", "fork", "spawn", "forkserver", "kept process")
FLAT = ("flat thread", "flat serial", "flat process", "flat spawn", "flat fork", "flat kept threads")
TASKS = ("tasks", "tasks thread", "tasks kept threads", "tasks process", "flat tasks", "gather")
DRIVERS = (*THREADS, "serial", "process executor", *PROCESSES, *FLAT, *TASKS)
WEIGHTS = [6 if each in THREADS or each in {"tasks", "flat thread", "gather"} else 2 for each in DRIVERS]

LIMIT_S = 2.0  # a time limit that is to expire; far longer than any other call takes
NEVER_S = 300.0  # one that is not

LEAVES = ("break", "error", "drop", "close")  # after so many results
ENDINGS = ("all", "all", "all", *LEAVES, "elsewhere", "inside", "deadline")
RAISES = ("signal", "interrupt")
BY_SIGNAL = (*RAISES, "close by signal")
POLICIES = ("raise", "abort", "skip", "return", "sentinel", "own", "retry", "retry skip", "retry return", "own retry")


def own(failure: Failure) -> Any:
    return (SKIP, ("own", failure.index), failure)[failure.index % 3]


def own_retry(failure: Failure) -> Any:
    return Retry(0) if failure.attempt < 3 else SKIP


POLICY: dict[str, Any] = {
    "sentinel": sentinel(("sentinel",)),
    "own": own,
    "own retry": own_retry,
    "retry": retry(3, backoff=0.001),
    "retry skip": retry(3, on=Oops, backoff=0, then="skip"),
    "retry return": retry(3, on=Oops, backoff=0.002, then="return"),
}


@dataclass
class Plan:
    """One run."""

    driver: str
    items: list[Item]
    policy: str
    ending: str
    after: int
    """Results after which it is left, where the consumer leaves it; or the item that closes it."""
    delay_s: float
    """After which it is closed, or interrupted, where somebody else does it."""
    options: dict[str, Any] = field(default_factory=dict)
    source_fails: bool = False
    endless: bool = False
    """Whether the source is an async one, or one without a length."""
    slow: bool = False
    """Whether the consumer takes its time."""

    @property
    def flat(self) -> bool:
        return self.driver.startswith("flat")

    @property
    def in_processes(self) -> bool:
        return any(word in self.driver for word in ("process", "fork", "spawn"))

    @property
    def tasks(self) -> bool:
        return "tasks" in self.driver or self.driver == "gather"

    def __repr__(self) -> str:
        kinds = ", ".join(f"{index}: {kind}" for index, kind, _ in self.items if kind not in {"plain", "sleep", "spin"})
        return (
            f"<{self.driver}, {len(self.items)} items ({kinds[:200]}), {self.policy}, ending {self.ending!r} "
            f"(after {self.after}, {self.delay_s * 1e3:.1f} ms), {self.options}"
            f"{', the source fails' * self.source_fails}{', slow consumer' * self.slow}>"
        )

    # ---- the oracle ------------------------------------------------------------------------------

    def expected(self) -> tuple[list[Any], str | None]:
        """What is delivered if nobody ends the run, and the name of the error that ends it."""
        delivered: list[Any] = []
        for item in self.items:
            elements, error, attempts = self._outcome(item)
            delivered += elements
            if error is not None:
                instead, ends = self._policy(item, error, attempts, made=self.flat and bool(elements))
                if ends:
                    return delivered, error
                delivered += instead
        return delivered, "SourceOops" if self.source_fails else None

    def _outcome(self, item: Item) -> tuple[list[Any], str | None, int]:
        """Its elements, the error that follows, and after how many failed attempts there is none."""
        _, kind, amount = item
        error = {
            "fail": "Oops", "fail0": "Oops", "flaky": "Oops", "stop": "RuntimeError", "exit": "SystemExit",
            "die": "WorkerDied", "die0": "WorkerDied", "leave": "WorkerDied", "hang": "TimeoutError", "lock": ANY,
        }.get(kind)  # fmt: skip
        elements = [(item[0], number) for number in range(elements_before(item))] if self.flat else [value_of(item)]
        if kind == "flaky":
            if self.policy in {"retry", "retry skip", "retry return", "own retry"} and amount < 3:
                return elements, None, 0
            return [], error, 3
        return (elements if self.flat or error is None else []), error, 3

    def _policy(self, item: Item, error: str, attempts: int, *, made: bool) -> tuple[list[Any], bool]:
        """What takes its place, and whether the run ends."""
        index = item[0]
        policy = self.policy
        if error == "SystemExit":
            return [], True
        if policy == "own retry":
            return [], made
        if policy.startswith("retry"):
            if made and (policy == "retry" or error == "Oops"):
                return [], True
            policy = policy.partition(" ")[2] or "raise"
        failure = ("failure", index, error)
        return {
            "raise": ([], True),
            "abort": ([], True),
            "skip": ([], False),
            "return": ([failure], False),
            "sentinel": ([("sentinel",)], False),
            "own": ([[], [("own", index)], [failure]][index % 3], False),
        }[policy]

    def check(self, got: list[Any], end: str | None, *, complete: bool) -> None:
        """Compare what was delivered, and the error, with what must be.

        Args:
            got: What was delivered.
            end: The name of the error that ended the run.
            complete: Whether the run was consumed to its end.
        """
        expected, error = self.expected()
        shown = [
            ("failure", each.index, type(each.error).__name__) if isinstance(each, Failure) else each for each in got
        ]
        for number, (one, other) in enumerate(zip(shown, expected, strict=False)):
            same = one == other or (other[0] == "failure" and other[2] is ANY and one[:2] == other[:2])
            assert same, f"result {number} is {one!r:.200}, not {other!r:.200}"
        assert len(shown) <= len(expected), (
            f"{len(shown)} results, not {len(expected)}: {shown[len(expected) :][:5]!r:.300}"
        )
        if end is not None and self.policy == "abort":  # the first failure in time
            assert self.errors_of_all() & {end, ANY}, f"it raised {end}"
            return
        if end is not None:
            assert error is not None, f"it raised {end}"
            assert end == error or error is ANY, f"it raised {end}, not {error}"
        if complete or end is not None:
            assert len(shown) == len(expected), f"{len(shown)} results, not {len(expected)}, then {end}"
            assert end is not None or error is None, f"it did not raise {error}"

    def errors_of_all(self) -> set[str]:
        """The errors that may come first in time."""
        errors = {"SourceOops"} if self.source_fails else set()
        for item in self.items:
            _, error, attempts = self._outcome(item)
            if error is not None and self._policy(item, error, attempts, made=False)[1]:
                errors.add(error)
        return errors


# ---- drawing a plan ------------------------------------------------------------------------------


def draw(rng: random.Random, drivers: tuple[str, ...], *, signals: bool) -> Plan:
    """A plan; with `signals` it may be ended by one."""
    driver = rng.choices(drivers, [WEIGHTS[DRIVERS.index(each)] for each in drivers])[0]
    plan = Plan(driver, [], rng.choice(POLICIES), "all", 0, 0.0)
    concurrency = rng.randint(1, 3 if plan.in_processes else 8)
    plan.options = {"concurrency": concurrency}
    _draw_window(rng, plan, concurrency)
    plan.ending = rng.choice(ENDINGS + (BY_SIGNAL if signals and not plan.tasks else ()))
    if plan.ending in RAISES and plan.driver in {"executor", "process executor", "callable"}:
        # It may land in the executor's own `with lock:`, and then nobody ever gets that lock (CPython issue 74174).
        plan.ending = "close by signal"
    if plan.ending == "signal" and "serial" in plan.driver:
        plan.ending = "interrupt"  # an Exception that lands in a call is taken for an error of the call
    if plan.ending == "inside" and (plan.in_processes or plan.flat or plan.driver.startswith("tasks ")):
        plan.ending = "elsewhere"
    if plan.driver == "gather":
        plan.ending = rng.choice(["all", "all", "cancel"])
        if rng.random() < 0.5:
            plan.options["batch_size"] = rng.randint(1, 10)
    elif plan.tasks and rng.random() < 0.2:
        plan.ending = "cancel"
    hangs = _draw_limit(rng, plan)
    many = rng.random() < 0.1 and not plan.flat
    count = rng.randint(200, 3000) if many else rng.randint(0, 40)
    plan.items = [_draw_item(rng, plan, index, tiny=many) for index in range(count)]
    for index in rng.sample(range(count), min(count, hangs)):
        plan.items[index] = (index, "hang", 0.0)
    plan.after = rng.randint(0, max(1, count))
    if plan.ending == "inside":
        plan.items[plan.after : plan.after + 1] = [(plan.after, "close", 0.0)]
    plan.delay_s = rng.expovariate(1 / 0.02)
    if plan.ending == "deadline":
        plan.options["deadline"] = max(1e-4, plan.delay_s)
    if {"flaky"} < {kind for _, kind, _ in plan.items} & {"flaky", "die", "leave"}:
        plan.options.setdefault("timeout", NEVER_S)  # else items of a batch may run twice
    if rng.random() < 0.1 and not many:
        plan.options["limit"] = rng.choice([200, 2000])  # calls per second
        plan.options.pop("chunksize", None)  # it starts items one by one
    plan.source_fails = rng.random() < 0.1
    plan.endless = rng.random() < 0.3
    plan.slow = rng.random() < 0.2 and not many
    return plan


def _draw_window(rng: random.Random, plan: Plan, concurrency: int) -> None:
    options = plan.options
    if plan.driver != "gather" and rng.random() < 0.6:
        options["window"] = rng.randint(1, 20)
    if plan.flat:
        options["buffer"] = rng.choice([1, 2, 3, 8, 64])
    elif not plan.tasks and rng.random() < 0.3:
        options["chunksize"] = rng.randint(1, options.get("window", 5))


def _draw_limit(rng: random.Random, plan: Plan) -> int:
    """Perhaps a time limit; how many calls are to exceed it."""
    if plan.driver in {"serial", "flat serial"} or rng.random() < 0.7:
        return 0
    plan.options["timeout"] = NEVER_S
    if rng.random() < 0.25 and plan.driver not in {"executor", "callable", "process executor"}:
        plan.options["timeout"] = LIMIT_S
        return rng.randint(1, 2)
    return 0


def _draw_item(rng: random.Random, plan: Plan, index: int, *, tiny: bool) -> Item:
    chance = rng.random()
    if chance < (0.999 if tiny else 0.85):
        if tiny:
            return index, "plain", 0.0
        return index, rng.choice(["plain", "plain", "sleep", "spin"]), rng.choice([0.0, 1e-4, 1e-3, 5e-3])
    kinds = ["fail", "flaky", "exit"]
    if plan.flat:
        kinds += ["fail0"]
    elif plan.tasks:
        kinds += ["big"]
    else:
        kinds += ["stop", "big"]
    if plan.in_processes and plan.driver != "process executor":
        kinds += ["die0"] if plan.flat else ["die", "die", "leave"]  # a death takes elements with it that were not sent
    if plan.in_processes and not plan.flat:
        kinds += ["lock"]
    if not plan.flat and not plan.in_processes and not plan.tasks:
        kinds += ["nested", "nested"] + ["shared"] * 3 * (plan.driver == "executor")
    kind = rng.choice(kinds)
    if kind == "exit" and rng.random() < 0.7:
        kind = "fail"
    amount = {"big": rng.choice([1000, 70_000, 300_000]), "nested": 5, "shared": 5, "flaky": rng.choice([1, 2, 3])}
    return index, kind, amount.get(kind, 0.0)
