"""Guarantee 21: context variables."""

import contextvars
from functools import partial

import pytest

from functions_for_workers import Oops, fail_at
from inturn import retry
from waiting import Source

# 21: context variables


word = contextvars.ContextVar("word", default="nothing")


def test_g21_context_variables_of_the_consumer_are_visible_in_fn(inside):
    token = word.set("hello")
    try:
        assert list(inside.map(lambda i: word.get(), range(50))) == ["hello"] * 50
    finally:
        word.reset(token)


def test_g21_the_context_is_that_of_the_first_next(inside):
    token = word.set("call")
    try:
        run = inside.map(lambda i: word.get(), range(60), window=4)
        word.set("first next")
        assert next(run) == "first next"
        word.set("later")
        assert list(run) == ["first next"] * 59
    finally:
        word.reset(token)


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_g21_what_one_item_sets_no_other_item_sees(inside, chunksize):
    def call(i):
        before = word.get()
        word.set(i)
        return before, word.get()

    results = list(inside.map(call, range(300), concurrency=2, chunksize=chunksize))
    assert results == [("nothing", i) for i in range(300)]
    assert word.get() == "nothing"


def test_g21_a_failing_item_leaves_nothing_in_the_context_either(inside):
    def call(i):
        before = word.get()
        word.set(i)
        if i % 2:
            raise Oops
        return before

    assert list(inside.map(call, range(100), on_error="skip")) == ["nothing"] * 50


def test_g21_an_attempt_sees_nothing_of_the_one_before(inside):
    seen = []

    def call(i):
        seen.append(word.get())
        word.set("set")
        if len(seen) < 3:
            raise Oops
        return i

    assert list(inside.map(call, [1], on_error=retry(backoff=0))) == [1]
    assert seen == ["nothing"] * 3


def test_g21_policies_and_sources_see_the_context_of_the_consumer(pulling):
    heard = []
    token = word.set("hello")
    try:
        source = Source(range(4), lambda k: heard.append(word.get()))
        run = pulling.map(partial(fail_at, frozenset({2})), source, on_error=lambda failure: word.get())
        assert list(run) == [0, 2, "hello", 6]
    finally:
        word.reset(token)
    assert set(heard) == {"hello"}
