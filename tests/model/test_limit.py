"""`Limiter` by itself, in virtual time (guarantee 34): the bound is exact for any pattern of questions."""

import math
import pickle
import threading
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn import Limiter
from inturn._model.limit import Turn, _Books


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Virtual(Limiter):
    """A limiter that counts on a clock of its own."""

    def __init__(self, time: Clock, *arguments: float, **settings: int) -> None:
        super().__init__(*arguments, **settings)
        self._books = _Books(time)
        self.time = time

    def asks(self, turn: Turn, *, take: bool = True) -> float | None:
        return self._ask(turn, self.time, take=take)


@pytest.fixture
def virtual() -> Clock:
    return Clock()


def most_in(starts: list[float], per: float) -> int:
    """The largest number of starts in any closed interval of so many seconds."""
    most = first = 0
    for last, at in enumerate(starts):
        while Fraction(at) - Fraction(starts[first]) > Fraction(per):
            first += 1
        most = max(most, last - first + 1)
    return most


def settings() -> st.SearchStrategy[tuple[float, float, int]]:
    return st.tuples(st.floats(0.1, 300), st.floats(0.05, 20), st.integers(1, 30))


steps = st.one_of(
    st.tuples(st.just("pass"), st.floats(0, 0.01) | st.floats(0, 30)),
    st.tuples(st.sampled_from(["take", "look", "leave", "wait", "all"]), st.integers(0, 2)),
    st.tuples(st.just("pause"), st.floats(0, 3)),
)


@given(settings(), st.lists(steps, max_size=300))
def test_g34_the_bound_is_exact_for_any_pattern_of_questions(
    setting: tuple[float, float, int], pattern: list[tuple[str, float]]
) -> None:
    rate, per, burst = setting
    time = Clock()
    limiter, turns = Virtual(time, rate, per, burst), [Turn(), Turn(), Turn()]
    starts: list[float] = []
    paused_until = -math.inf
    for act, value in pattern:
        if act == "pass":
            time.now += value
        elif act == "pause":
            limiter.pause(value)
            paused_until = max(paused_until, time.now + value)
        elif act == "leave":
            limiter._leave(turns[int(value)])
        elif act == "look":
            limiter.asks(turns[int(value)], take=False)
        elif act in {"take", "wait"}:
            left = limiter.asks(turns[int(value)])
            if left is not None and act == "wait":  # come back when told
                assert left > 0
                time.now = math.nextafter(time.now + left, math.inf)
                left = limiter.asks(turns[int(value)])
            if left is None:
                assert time.now >= paused_until
                starts.append(time.now)
        else:  # as many as there are, by one run or by all
            for turn in turns[: int(value) + 1]:
                while limiter.asks(turn) is None:
                    assert time.now >= paused_until
                    starts.append(time.now)
    assert most_in(starts, per) <= math.floor(rate * per + burst + 1e-6)


@given(settings(), st.integers(1, 200))
def test_g34_a_run_that_comes_back_when_it_is_told_uses_the_limit(
    setting: tuple[float, float, int], count: int
) -> None:
    rate, per, burst = setting
    time = Clock()
    limiter, turn = Virtual(time, rate, per, burst), Turn()
    begun = time.now
    starts = 0
    while starts < count:
        left = limiter.asks(turn)
        if left is None:
            starts += 1
        else:
            time.now = math.nextafter(time.now + left, math.inf)
    ideal = max(0, count - burst) / rate
    # The memory may have to wait for up to 2 % more than `per`, and what `per` holds less than a whole start.
    least = math.floor(rate * per + burst)
    assert time.now - begun <= ideal * 1.021 + per * 1.021 * (1 - (least - burst) / (rate * per)) + 1.021 / rate + 1e-6


@given(settings(), st.lists(st.floats(0, 0.05), min_size=1, max_size=200))
def test_g34_a_run_that_is_woken_late_loses_nothing(setting: tuple[float, float, int], delays: list[float]) -> None:
    rate, per, burst = setting
    time = Clock()
    limiter, turn = Virtual(time, rate, per, burst), Turn()
    punctual = Clock()
    exact = Virtual(punctual, rate, per, burst)
    for delay in delays:
        other = Turn()
        while (left := exact.asks(other)) is not None:
            punctual.now = math.nextafter(punctual.now + left, math.inf)
        while (left := limiter.asks(turn)) is not None:
            time.now = math.nextafter(time.now + left, math.inf) + min(delay, per / 40)
    # Only what the memory, or the last delays, have cost.
    assert time.now - punctual.now <= 2 * per / 20 + 0.051 + per * 0.05 * (len(delays) // max(1, rate * per) + 1)


def test_g34_a_burst_starts_at_once_after_a_rest_and_then_one_by_one(virtual: Clock) -> None:
    limiter, turn = Virtual(virtual, 10, burst=3), Turn()
    for _ in range(3):  # rests
        assert [limiter.asks(turn) for _ in range(3)] == [None] * 3
        for _ in range(5):
            left = limiter.asks(turn)
            assert left == pytest.approx(0.1)
            virtual.now += left + 1e-9
            assert limiter.asks(turn) is None
        limiter._leave(turn)
        virtual.now += 100


def test_g34_starts_that_were_made_late_are_made_up_for_but_no_rest_is(virtual: Clock) -> None:
    limiter, turn = Virtual(virtual, 10, per=10), Turn()
    assert limiter.asks(turn) is None
    assert limiter.asks(turn) == pytest.approx(0.1)
    virtual.now += 0.25  # 0.15 too late: one more start is due
    assert limiter.asks(turn) is None
    assert limiter.asks(turn) is None
    assert limiter.asks(turn) == pytest.approx(0.05)
    limiter._leave(turn)
    virtual.now += 0.25  # nobody waited
    assert limiter.asks(turn) is None
    assert limiter.asks(turn) == pytest.approx(0.1)


def test_g34_a_long_delay_is_made_up_for_in_part(virtual: Clock) -> None:
    limiter, turn = Virtual(virtual, 100), Turn()
    assert limiter.asks(turn) is None
    assert limiter.asks(turn) is not None
    virtual.now += 0.9
    at_once = 0
    while limiter.asks(turn) is None:
        at_once += 1
    assert 2 <= at_once <= 6  # a twentieth of `per`, and the one that is due


def test_g34_a_pause_is_kept_and_the_longest_counts(virtual: Clock) -> None:
    limiter, turn = Virtual(virtual, 10, burst=2), Turn()
    limiter.pause(5)
    limiter.pause(2)
    assert limiter.asks(turn) == pytest.approx(5)
    virtual.now += 3
    assert limiter.asks(turn) == pytest.approx(2)
    virtual.now += 2
    assert [limiter.asks(turn), limiter.asks(turn)] == [None, None]  # a pause is a rest, but not a delay
    assert limiter.asks(turn) == pytest.approx(0.1)
    limiter.pause(0)
    assert limiter.asks(turn) == pytest.approx(0.1)


def test_g34_runs_that_share_a_limiter_start_in_turn(virtual: Clock) -> None:
    limiter, turns = Virtual(virtual, 10), [Turn(), Turn(), Turn()]
    assert limiter.asks(turns[0]) is None
    served: list[int] = []
    lefts = [limiter.asks(turn) for turn in turns]
    assert lefts == [pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.3)]
    for _ in range(30):
        virtual.now += 0.1 + 1e-9
        for each in (2, 1, 0):  # the last one asks first
            if limiter.asks(turns[each]) is None:
                served.append(each)
                assert limiter.asks(turns[each]) is not None
    assert served == [0, 1, 2] * 10


def test_g34_a_run_that_does_not_come_or_has_ended_holds_up_nobody(virtual: Clock) -> None:
    limiter, absent, ended, present = Virtual(virtual, 10), Turn(), Turn(), Turn()
    assert limiter.asks(absent) is None
    for turn in (absent, ended, present):
        assert limiter.asks(turn) is not None
    limiter._leave(ended)
    begun, starts = virtual.now, 0
    while virtual.now < begun + 10:
        left = limiter.asks(present)
        if left is None:
            starts += 1
        else:
            virtual.now += left + 1e-9
    assert starts >= 97
    while limiter.asks(present) is None:
        pass
    assert limiter.asks(absent) == pytest.approx(0.2, abs=0.01)  # it is back, behind the other


def test_g34_no_start_is_lost_or_counted_twice_by_threads() -> None:
    limiter = Virtual(
        Clock(), 1e-3, per=1e6, burst=5000
    )  # 6,000 in the interval; nothing is refilled while the test runs
    taken: list[int] = []
    begin = threading.Barrier(4)

    def take() -> None:
        turn, count = Turn(), 0
        begin.wait()
        while limiter.asks(turn) is None:
            count += 1
        taken.append(count)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 5000


def test_g34_pauses_of_several_threads_are_all_kept(virtual: Clock) -> None:
    limiter = Virtual(virtual, 1)
    threads = [threading.Thread(target=limiter.pause, args=(each,)) for each in range(1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limiter.asks(Turn()) == 19


def test_g34_what_is_out_of_the_interval_is_forgotten(virtual: Clock) -> None:
    limiter, turn = Virtual(virtual, 100, burst=5), Turn()
    for _ in range(1000):
        virtual.now += 0.02
        assert limiter.asks(turn) is None
    oldest, count = limiter._books.start.past, 0
    while oldest is not None:
        oldest, count = oldest.after(), count + 1
    assert count == limiter._most


def test_g34_a_limiter_with_a_long_memory_ends_without_recursion() -> None:
    limiter, turn = Virtual(Clock(), 1, per=1e6, burst=50_000), Turn()
    for _ in range(50_000):  # far deeper than the stack of C
        assert limiter.asks(turn) is None
    del limiter


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0,), ValueError, "rate must be above 0"),
        ((-1,), ValueError, "rate must be a finite number"),
        ((math.inf,), ValueError, "rate must be a finite number"),
        ((math.nan,), ValueError, "rate must be a finite number"),
        ((True,), TypeError, "rate must be a number of calls per second, got bool"),
        (("5",), TypeError, "rate must be a number of calls per second, got str"),
        ((5, 0), ValueError, "per must be above 0"),
        ((5, None), TypeError, "per must be a number of seconds"),
        ((5, 1, 0), ValueError, "burst must be at least 1"),
        ((5, 1, 1.5), TypeError, "burst must be an int"),
    ],
)
def test_g34_arguments_are_checked(arguments: tuple[object, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Limiter(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [(5e-324, 1.0, 1), (1e308, 1e308, 1), (1e308, 1e-300, 1), (1e-300, 1e300, 10**30)])
def test_g34_extreme_numbers_are_numbers(setting: tuple[float, float, int]) -> None:
    limiter, turn = Virtual(Clock(), *setting), Turn()
    assert limiter.asks(turn) is None
    assert limiter.asks(turn, take=False) is None or limiter.asks(turn) > 0


def test_g34_a_limiter_is_shown_and_refuses_to_be_pickled() -> None:
    assert repr(Limiter(50)) == "Limiter(50, per=1, burst=1)"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Limiter(50))
    for seconds, error in [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)]:
        with pytest.raises(error, match="seconds must be"):
            Limiter(50).pause(seconds)  # type: ignore[arg-type]
    assert not hasattr(Limiter(50), "__dict__")
