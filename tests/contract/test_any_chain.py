"""Chains of one to four stages, with failures, closings and windows at random, against a model in plain Python."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions_for_workers import Oops
from inturn import (
    Failure,
    Report,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_map,
    sentinel,
)
from inturn.testing import Schedule
from waiting import Source

MOST = 12  # items


@dataclass(frozen=True)
class Stage:
    """What one stage does. An item that it is given is a tuple: the numbers that earlier stages have put together."""

    flat: bool
    lost: int  # every so-manieth item fails; 0 for none
    policy: str
    window: int
    concurrency: int
    executor: str

    def parts(self, item: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The elements of an item of a flat map; one that is lost has made the first of them."""
        for part in range(2 + sum(item) % 2):
            yield (*item, part)
            if self.fails(item):
                raise Oops(item)

    def call(self, item: tuple[int, ...]) -> tuple[int, ...]:
        if self.fails(item):
            raise Oops(item)
        return (*item, 0)

    def fails(self, item: tuple[int, ...]) -> bool:
        return bool(self.lost) and hash(item) % self.lost == 0


stages = st.lists(
    st.builds(
        Stage,
        flat=st.booleans(),
        lost=st.sampled_from([0, 2, 3, 5]),
        policy=st.sampled_from(["return", "skip", "sentinel"]),
        window=st.integers(1, 6),
        concurrency=st.integers(1, 4),
        executor=st.sampled_from(["thread", "serial", "schedule"]),
    ),
    min_size=1,
    max_size=4,
)


def policy_of(stage: Stage) -> Any:
    return sentinel((0,)) if stage.policy == "sentinel" else stage.policy


def expected(chain: list[Stage], items: int) -> list[tuple[Any, int]]:
    """What the chain delivers, each with its origin: results, and failures as (stage, index, origin)."""
    stream: list[tuple[Any, int]] = [((i,), i) for i in range(items)]
    for number, stage in enumerate(chain):
        following: list[tuple[Any, int]] = []
        for index, (item, origin) in enumerate(stream):
            if type(item[0]) is str:  # a failure of an earlier stage
                following.append((item, origin))
                continue
            made = []
            try:
                made.extend((part, origin) for part in (stage.parts(item) if stage.flat else [stage.call(item)]))
            except Oops:
                if stage.flat:
                    made = [((*item, 0), origin)]  # what was made before the error
                if stage.policy != "skip":
                    instead: Any = (str(number), index, origin) if stage.policy == "return" else (0,)
                    made.append((instead, origin))
            following += made
        stream = following
    return stream


def shown(each: Any) -> Any:
    return (each.stage, each.index, each.origin) if isinstance(each, Failure) else each


def chained(chain: list[Stage], source: Any, schedule: Schedule, live: bool = False) -> Any:
    run = ((i,) for i in range(0)) if source is None else source
    for number, stage in enumerate(chain):
        make: Callable[..., Any] = ordered_flat_map if stage.flat else ordered_map
        run = make(
            stage.parts if stage.flat else stage.call,
            run,
            executor=schedule if stage.executor == "schedule" else stage.executor,
            concurrency=stage.concurrency,
            window=stage.window,
            on_error=policy_of(stage),
            pass_failures=True,
            name=str(number),
            live=live,
        )
    return run


@given(chain=stages, items=st.integers(0, MOST), seed=st.integers(0, 2**16), live=st.booleans())
def test_g37_any_chain_delivers_what_the_model_does(chain, items, seed, live):
    live = live and all(stage.executor != "schedule" for stage in chain)
    source = Source((i,) for i in range(items))
    run = chained(chain, source, Schedule(seed=seed), live)
    wanted = [each for each, _ in expected(chain, items)]
    assert [shown(each) for each in run] == wanted
    for each in run.stages:
        assert each.stats.pulled == each.stats.delivered + each.stats.skipped or any(s.flat for s in chain)


@given(chain=stages, items=st.integers(0, MOST), seed=st.integers(0, 2**16))
def test_g38_a_report_names_each_loss_once_by_stage(chain, items, seed):
    report = Report(chained(chain, [(i,) for i in range(items)], Schedule(seed=seed)))
    lost = [each for each, _ in expected(chain, items) if type(each[0]) is str]
    assert [shown(each) for each in report.failed] == lost
    assert sum(report.by_stage.values()) == len(lost)
    assert report.by_stage == {
        name: sum(each[0] == name for each in lost) for name in dict.fromkeys(e[0] for e in lost)
    }


@given(chain=stages, taken=st.integers(0, MOST), seed=st.integers(0, 2**16), live=st.booleans())
def test_g37_a_chain_that_is_closed_at_any_moment_ends_every_stage(chain, taken, seed, live):
    live = live and all(stage.executor != "schedule" for stage in chain)
    source = Source((i,) for i in itertools.count())
    run = chained(chain, source, Schedule(seed=seed), live)
    if any(stage.lost == 2 and stage.policy == "skip" for stage in chain):
        taken = min(taken, 3)
    wanted = [each for each, _ in expected(chain, 60)][:taken]
    with run:
        assert [shown(each) for each in itertools.islice(run, len(wanted))] == wanted
    pulled = source.pulls
    for each in run.stages:
        assert next(each, None) is None
        assert each.stats.running == 0
    assert source.pulls == pulled
    held = [stage.stats.pulled - stage.stats.delivered - stage.stats.skipped for stage in run.stages]
    assert all(one <= stage.window for one, stage in zip(held, chain, strict=True))


@given(chain=stages, items=st.integers(1, MOST), broken=st.integers(0, MOST), seed=st.integers(0, 2**16))
def test_g37_an_error_of_the_source_comes_after_all_that_was_before_it(chain, items, broken, seed):
    def source() -> Iterator[tuple[int]]:
        for i in range(items):
            if i == broken:
                raise Oops("source")
            yield (i,)

    run = chained(chain, source(), Schedule(seed=seed))
    delivered = []
    try:
        for each in run:
            delivered.append(shown(each))
    except Oops as error:
        assert str(error) == "source"
        assert broken < items
    else:
        assert broken >= items
    assert delivered == [each for each, _ in expected(chain, min(items, broken))]
    assert list(run) == []


@given(chain=stages, items=st.integers(0, MOST), taken=st.none() | st.integers(0, MOST), synchronous=st.integers(0, 4))
def test_g37_any_chain_of_asyncio_delivers_what_the_model_does(chain, items, taken, synchronous):
    """Some stages at the front are synchronous, those behind them are tasks or run elsewhere."""

    async def main() -> None:
        run: Any = [(i,) for i in range(items)]
        if synchronous and items:
            run = chained(chain[:synchronous], run, Schedule())
        for number, stage in enumerate(chain[synchronous if items else 0 :], synchronous if items else 0):
            run = asynchronous(stage, run, str(number))
        wanted = [each for each, _ in expected(chain, items)]
        delivered: list[Any] = []
        if not hasattr(type(run), "__aiter__"):  # all stages are synchronous
            return run.close() if hasattr(run, "close") else None
        async with run:
            async for each in run:
                delivered.append(shown(each))
                if len(delivered) == taken:
                    break
            else:
                assert delivered == wanted
        assert delivered == wanted[: len(delivered)]
        assert len(asyncio.all_tasks()) == 1
        for each in run.stages:
            assert each.stats.running == 0
        return None

    asyncio.run(main())


def asynchronous(stage: Stage, source: Any, name: str) -> Any:
    async def call(item: Any) -> Any:
        for _ in range(sum(item) % 3):
            await asyncio.sleep(0)
        return stage.call(item)

    async def parts(item: Any) -> Any:
        for part in stage.parts(item):
            await asyncio.sleep(0)
            yield part

    elsewhere = stage.executor == "thread"
    fn: Any = (stage.parts if elsewhere else parts) if stage.flat else stage.call if elsewhere else call
    make: Any = ordered_aflat_map if stage.flat else ordered_amap
    return make(
        fn,
        source,
        executor="thread" if elsewhere else None,
        concurrency=stage.concurrency,
        window=stage.window,
        on_error=policy_of(stage),
        pass_failures=True,
        name=name,
    )


@pytest.mark.parametrize("stages_", [1, 2, 3, 4])
def test_g37_the_same_chain_in_virtual_time_is_the_same_twice(stages_):
    chain = [Stage(False, 5, "return", 4, 3, "schedule")] * stages_
    first, second = Schedule(seed=7), Schedule(seed=7)
    source = [(i,) for i in range(MOST)]
    assert [shown(e) for e in chained(chain, source, first)] == [shown(e) for e in chained(chain, source, second)]
    assert first.timeline() == second.timeline()
