"""Types, as mypy and pyright see them (both check this file) and as they are: what is delivered follows the policy."""

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn, assert_type

import pytest

import inturn
from inturn import (
    SKIP,
    Failure,
    Limiter,
    OrderedAflatMap,
    OrderedAmap,
    OrderedFlatMap,
    OrderedMap,
    Report,
    Retry,
    RetryPolicy,
    Skip,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
    retry,
    sentinel,
)


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


def is_short(failure: Failure) -> bool:
    return failure.elapsed < 1


def seconds_of(failure: Failure) -> float | None:
    return 1.5 if failure.index else None


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
    assert assert_type(list(ordered_map(half, [2], on_error="abort", limit=50)), list[float]) == [1.0]
    assert_type(retry(5, OSError, backoff=0), RetryPolicy[NoReturn])
    assert_type(retry(then="abort"), RetryPolicy[NoReturn])
    assert_type(retry(on=is_short, after=seconds_of, on_retry=print), RetryPolicy[NoReturn])
    assert_type(retry(on=(OSError, ValueError), then=sentinel(None)), RetryPolicy[None])
    assert_type(retry(on=is_short, then="return"), RetryPolicy[Failure])
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


def test_with_pass_failures_fn_need_not_take_failures_and_they_are_delivered() -> None:
    stage = ordered_map(half, [3, 2], on_error="return")
    run = ordered_map(round, stage, pass_failures=True)
    assert_type(run, OrderedMap[int | Failure])
    assert [type(each) for each in run] == [Failure, int]
    pairs = ordered_map(str, ordered_map(half, [2], on_error="return"), pass_failures=True, indexed=True)
    assert assert_type(list(pairs), list[tuple[int, str | Failure]]) == [(0, "1.0")]
    kept = ordered_map(str, ordered_map(half, [2], on_error="return"), pass_failures=True, on_error="return")
    assert assert_type(list(kept), list[str | Failure]) == ["1.0"]
    several = ordered_map(join2, [1], ["a"], pass_failures=True, on_error=sentinel(None))
    assert assert_type(list(several), list[str | Failure | None]) == ["1a"]
    flat = ordered_flat_map(chars, ordered_map(round, [1], on_error="return"), pass_failures=True)
    assert assert_type(list(flat), list[str | Failure]) == ["1"]

    async def main() -> None:
        async with ordered_amap(ahalf, ordered_map(int, "4"), pass_failures=True) as run:
            assert assert_type([each async for each in run], list[float | Failure]) == [2.0]
        async with ordered_amap(half, ordered_map(int, "4"), executor="thread", pass_failures=True) as threads:
            assert assert_type([each async for each in threads], list[float | Failure]) == [2.0]
        async with ordered_aflat_map(achars, ordered_map(int, ["12"]), pass_failures=True) as letters:
            assert assert_type([each async for each in letters], list[str | Failure]) == ["1", "2"]
        gathered = await ordered_gather(ahalf, ordered_map(int, "4"), pass_failures=True)
        assert assert_type(gathered, list[float | Failure]) == [2.0]

    asyncio.run(main())


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
            assert_type(flat, OrderedAflatMap[str])
            assert assert_type([each async for each in flat], list[str]) == ["1", "2"]
        assert assert_type(await ordered_gather(ahalf, [1, 2]), list[float]) == [0.5, 1.0]
        mixed = await ordered_gather(ahalf, [3, 2], on_error="return")
        assert assert_type(Report(mixed).successful, list[float]) == [1.0]
        assert assert_type(await ordered_gather(half, [1, 2], executor="thread"), list[float]) == [0.5, 1.0]
        kept = await ordered_gather(half, [2], executor="thread", on_error="return", deadline=60, progress=False)
        assert assert_type(kept, list[float | Failure]) == [1.0]
        assert assert_type(await ordered_gather(join2, [1], ["x"], executor="thread"), list[str]) == ["1x"]
        assert assert_type(await ordered_gather(ahalf, [2], limit=Limiter(50), on_error="abort"), list[float]) == [1.0]

    asyncio.run(main())


# ---- what type checkers refuse -----------------------------------------------------------------------

PREAMBLE = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
from inturn import *
def half(i: int) -> float: return i / 2
def join(a: int, b: str) -> str: return f"{a}{b}"
def chars(i: int) -> list[str]: return [str(i)]
async def ahalf(i: int) -> float: return i / 2
def policy(failure: Failure) -> str: return ""
def wrong_policy(index: int) -> str: return ""
"""

WRONG = {
    'ordered_map(half, ["a"])': r"half|str",
    'ordered_map(half, ["a"], indexed=True, on_error="return")': r"half|str",
    "ordered_map(join, [1], [2])": r"join|int",
    "ordered_map(join, [1])": r"int, (b: )?str",
    "ordered_map(half, 3)": r"int",
    "ordered_map(half, [1], concurency=3)": r"concurency|No overload",
    'ordered_map(half, [1], concurrency="3")': r"str|\"3\"|'3'",
    'ordered_map(half, [1], executor="threads")': r"threads|str",
    'ordered_map(half, [1], on_error="ignore")': r"ignore|str",
    "ordered_map(half, [1], on_error=5)": r"5|int",
    "ordered_map(half, [1], on_error=wrong_policy)": r"wrong_policy|int",
    "ordered_map(half, [1], on_error=retry)": r"[Oo]verload",
    "ordered_map(half, [1], buffer=3)": r"buffer|No overload",
    'ordered_flat_map(chars, ["a"])': r"chars|str",
    "ordered_flat_map(half, [1])": r"half|Iterable",
    "ordered_flat_map(chars, [1], chunksize=3)": r"chunksize|No overload",
    "ordered_flat_map(chars, [1], executor=ThreadPoolExecutor(2))": r"ThreadPoolExecutor",
    "ordered_amap(half, [1])": r"Awaitable",
    'ordered_amap(ahalf, ["a"])': r"ahalf|str",
    'ordered_amap(half, ["a"], executor="thread")': r"half|str",
    "ordered_amap(ahalf, [1], live=True)": r"live|No overload",
    "ordered_aflat_map(chars, [1])": r"AsyncIterable",
    'ordered_aflat_map(chars, ["a"], executor="thread")': r"chars|str",
    "ordered_gather(half, [1])": r"Awaitable",
    'ordered_map(half, ordered_map(half, [1], on_error="return"))': r"half|Failure",
    'ordered_map(half, ["a"], pass_failures=True)': r"half|str",
    "ordered_map(half, [1], name=3)": r"3|int",
    "ordered_gather(ahalf, [1], indexed=True)": r"indexed|No overload",
    'ordered_gather(half, ["a"], executor="thread")': r"half|str",
    'ordered_map(half, [1], limit="5")': r"str|'5'",
    "retry(on=3)": r"int|3|overload",
    "retry(after=5)": r"5|int",
    'retry(then="ignore")': r"ignore|str",
    "retry(attemps=3)": r"attemps|No overload",
}

# So many lines, at most; for the others mypy may list the overloads, each on a line.
IN_FEW = {'ordered_map(half, ["a"])': 2, "ordered_amap(half, [1])": 5}

RIGHT = """
ordered_map(max, [1], [2], [3], [4], [5], [6])
ordered_map(pow, [2], [3])
ordered_map(lambda a, b: a * b, [2], [3], executor=ThreadPoolExecutor)
ordered_map(half, [1], executor=ThreadPoolExecutor(2), progress=print)
ordered_map(half, [1], on_error=policy, concurrency=None, timeout=1)
ordered_amap(lambda u: ahalf(u), [1], executor=None)
ordered_amap(half, [1], executor="process")
"""


def _environment() -> dict[str, str]:
    source = str(Path(inturn.__file__).parents[1])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # pyright asks `python`
    return {**os.environ, "PYTHONPATH": source, "MYPYPATH": source, "PATH": path}


def _run(tool: str, folder: Path, *arguments: str) -> str:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    command = [sys.executable, "-m", tool, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=_environment(), check=False).stdout


Check = Callable[[Path], dict[int, list[str]]]


def _mypy(folder: Path) -> dict[int, list[str]]:
    """The messages about each line of the program."""
    found: dict[int, list[str]] = defaultdict(list)
    for line in _run("mypy", folder, "--strict", "--cache-dir=cache", "--no-error-summary", "program.py").splitlines():
        message = re.match(r"program\.py:(\d+): (?:error|note): (.*)", line)
        assert message is not None, line
        found[int(message[1])].append(message[2])
    return found


def _pyright(folder: Path) -> dict[int, list[str]]:
    config = {"extraPaths": [str(Path(inturn.__file__).parents[1])], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    found: dict[int, list[str]] = defaultdict(list)
    for each in json.loads(_run("pyright", folder, "--outputjson", "program.py"))["generalDiagnostics"]:
        if each["severity"] == "error" and each.get("rule") != "reportUnusedCoroutine":
            found[each["range"]["start"]["line"] + 1] += each["message"].splitlines()
    return found


@pytest.mark.long
@pytest.mark.parametrize("check", [_mypy, _pyright], ids=["mypy", "pyright"])
def test_type_checkers_refuse_wrong_programs_in_few_lines_and_accept_right_ones(tmp_path: Path, check: Check) -> None:
    right = PREAMBLE + RIGHT
    (tmp_path / "program.py").write_text(right + "\n".join(WRONG) + "\n")
    messages = check(tmp_path)
    first = len(right.splitlines()) + 1
    assert all(line >= first for line in messages), {line: messages[line] for line in messages if line < first}
    for line, (program, words) in enumerate(WRONG.items(), first):
        assert len(messages[line]) <= IN_FEW.get(program, 36), (program, messages[line])
        assert messages[line], program
        assert re.search(words, "\n".join(messages[line][:4])), (program, messages[line])


def test_every_public_type_is_known_to_pyright(tmp_path: Path) -> None:
    out = _run("pyright", tmp_path, "--verifytypes", "inturn", "--ignoreexternal")
    assert "Type completeness score: 100%" in out, out
