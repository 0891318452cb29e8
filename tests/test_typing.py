"""Types, as mypy and pyright see them (both check this file) and as they are: what is delivered follows the policy."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from inturn import (
    SKIP,
    Failure,
    Report,
    Retry,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
    retry,
    sentinel,
)
from inturn._aio.driver import OrderedAmap
from inturn._model.policy import Skip
from inturn._sync.driver import OrderedMap
from inturn._sync.flat import OrderedFlatMap


def half(i: int) -> float:
    if i == 3:
        raise ValueError(i)
    return i / 2


def join2(a: int, b: str) -> str:
    return f"{a}{b}"


def join3(a: int, b: str, c: int) -> str:
    return f"{a}{b}{c}"


def join4(a: int, b: str, c: int, d: str) -> str:
    return f"{a}{b}{c}{d}"


def join5(a: int, b: str, c: int, d: str, e: int) -> str:
    return f"{a}{b}{c}{d}{e}"


def by_hand(failure: Failure) -> str | Skip | Retry:
    return SKIP if failure.index else Retry()


def as_text(failure: Failure) -> str:
    return f"{failure.index}?"


def chars(i: int) -> Iterator[str]:
    yield from str(i)


async def ahalf(i: int) -> float:
    await asyncio.sleep(0)
    return half(i)


async def ajoin2(a: int, b: str) -> str:
    return join2(a, b)


async def achars(i: int) -> AsyncIterator[str]:
    for char in str(i):
        yield char


def test_what_is_delivered_follows_the_policy() -> None:
    assert assert_type(list(ordered_map(half, [1, 2])), list[float]) == [0.5, 1.0]
    assert assert_type(list(ordered_map(half, [3, 2], on_error="skip")), list[float]) == [1.0]
    failure, result = assert_type(list(ordered_map(half, [3, 2], on_error="return")), list[float | Failure])
    assert isinstance(failure, Failure)
    assert result == 1.0
    assert assert_type(list(ordered_map(half, [3, 2], on_error=sentinel(None))), list[float | None]) == [None, 1.0]
    run = ordered_map(half, [3, 2], on_error=sentinel(factory=as_text))
    assert assert_type(list(run), list[float | str]) == ["0?", 1.0]
    assert assert_type(list(ordered_map(half, [2, 3], on_error=by_hand)), list[float | str]) == [1.0]
    assert assert_type(list(ordered_map(half, [2], on_error=retry(backoff=0))), list[float]) == [1.0]
    again = ordered_map(half, [3], on_error=retry(attempts=2, backoff=0, then=sentinel("?")))
    assert assert_type(list(again), list[float | str]) == ["?"]
    kept = ordered_map(half, [3], on_error=retry(attempts=2, backoff=0, then="return"))
    assert isinstance(assert_type(list(kept), list[float | Failure])[0], Failure)


def test_indexed_results_are_pairs() -> None:
    assert assert_type(list(ordered_map(half, [2], indexed=True)), list[tuple[int, float]]) == [(0, 1.0)]
    pairs = ordered_map(half, [3], indexed=True, on_error=sentinel(None))
    assert assert_type(list(pairs), list[tuple[int, float | None]]) == [(0, None)]


def test_one_to_five_iterables() -> None:
    a, b = [1], ["x"]
    assert assert_type(list(ordered_map(join2, a, b)), list[str]) == ["1x"]
    assert assert_type(list(ordered_map(join3, a, b, a)), list[str]) == ["1x1"]
    assert assert_type(list(ordered_map(join4, a, b, a, b)), list[str]) == ["1x1x"]
    assert assert_type(list(ordered_map(join5, a, b, a, b, a, indexed=True)), list[tuple[int, str]]) == [(0, "1x1x1")]
    assert assert_type(list(ordered_map(join5, a, b, a, b, a, on_error=sentinel(None))), list[str | None]) == ["1x1x1"]


def test_a_run_is_an_iterator_and_a_context_manager() -> None:
    with ordered_map(half, [2], executor="serial", progress=False) as run:
        assert_type(run, OrderedMap[float])
        assert assert_type(next(run), float) == 1.0
        assert assert_type(iter(run), OrderedMap[float]) is run


def test_flat_maps() -> None:
    run = ordered_flat_map(chars, [12, 3])
    assert_type(run, OrderedFlatMap[str])
    assert assert_type(list(run), list[str]) == ["1", "2", "3"]
    none = ordered_flat_map(chars, [12], on_error=sentinel(None), indexed=True)
    assert assert_type(list(none), list[tuple[int, str | None]]) == [(0, "1"), (0, "2")]


def test_a_report_has_the_type_of_the_results() -> None:
    report = Report(ordered_map(half, [3, 2], on_error="return"))
    assert assert_type(report.successful, list[float]) == [1.0]
    assert len(assert_type(report.failed, list[Failure])) == 1


def test_the_async_siblings() -> None:
    async def main() -> None:
        async with ordered_amap(ahalf, [1, 2]) as run:
            assert_type(run, OrderedAmap[float])
            assert assert_type([each async for each in run], list[float]) == [0.5, 1.0]
        async with ordered_amap(ajoin2, [1], ["x"], on_error="return", indexed=True) as pairs:
            assert assert_type([each async for each in pairs], list[tuple[int, str | Failure]]) == [(0, "1x")]
        async with ordered_amap(half, [1, 2], executor="thread") as threads:
            assert assert_type([each async for each in threads], list[float]) == [0.5, 1.0]
        async with ordered_aflat_map(achars, [12]) as flat:
            assert assert_type([each async for each in flat], list[str]) == ["1", "2"]
        assert assert_type(await ordered_gather(ahalf, [1, 2]), list[float]) == [0.5, 1.0]
        mixed = await ordered_gather(ahalf, [3, 2], on_error="return")
        assert assert_type(Report(mixed).successful, list[float]) == [1.0]

    asyncio.run(main())
