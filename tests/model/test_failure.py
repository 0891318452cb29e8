"""`Failure` and the short form of items: comparing and showing whatever users hand over."""

import array
import collections
import pickle
from typing import NamedTuple

import numpy as np
import pytest

import functions_for_workers as calls
from functions_for_workers import Oops
from inturn import Failure
from inturn._model.shorten import shorten


def failure(item=1, error=None, **fields):
    return Failure(3, item, error or Oops("no"), **fields)


@pytest.mark.parametrize("item", [np.arange(4), calls.Table(), (np.arange(4), 1), calls.Prickly()], ids=type)
def test_failures_compare_to_a_bool_whatever_their_items(item):
    error = Oops("no")
    assert (failure(item, error) == failure(item, error)) is True
    assert (failure(item, error) != failure(item, error)) is False
    assert (failure(item) == failure("another")) is False
    assert failure(item) in [failure("another"), failure(item)]


def test_failures_of_equal_arrays_that_are_not_the_same_object_are_not_equal():
    assert failure(np.arange(4)) != failure(np.arange(4))


@pytest.mark.parametrize("item", [1, "x", None, (1, "x"), [1.5, {}]], ids=type)
def test_a_failure_equals_its_pickled_self(item):
    it = failure(item, attempt=2, elapsed=0.25, delivered=7)
    assert pickle.loads(pickle.dumps(it)) == it


def test_failures_that_differ_in_anything_are_not_equal():
    it = failure()
    others = [
        Failure(4, 1, Oops("no")),
        failure(2),
        failure(error=Oops("yes")),
        failure(error=ValueError("no")),
        failure(attempt=2),
        failure(elapsed=1.0),
        failure(delivered=1),
        "no failure",
    ]
    assert it == failure()
    assert all(it != other for other in others)


class Rows(list):
    """A list that prints as a list does."""


class Named(NamedTuple):
    """A tuple with a repr of its own."""

    a: object
    b: int


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (1, "1"),
        ("a\nb", r"'a\nb'"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, "x"), "(1, 'x')"),
        ([1, 2], "[1, 2]"),
        ([], "[]"),
        ({1}, "{1}"),
        ({"a": [1]}, "{'a': [1]}"),
        (frozenset({8}), "frozenset({8})"),
        (Rows([1]), "Rows([1])"),
        (Named(1, 2), "Named(a=1, b=2)"),
        (np.zeros((2, 2)), "array([[0., 0.], [0., 0.]])"),
        (calls.Prickly(), "<Prickly without repr>"),
        ([calls.Prickly()], "[<Prickly without repr>]"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        ([[[[[]]]]], "[[[[...]]]]"),
    ],
)
def test_an_item_is_shown_as_python_would_as_far_as_there_is_room(item, text):
    assert shorten(item) == text


LOOP = []
LOOP.append(LOOP)


HUGE = {  # made within the test: a process that holds them all is slow to fork, and many other tests fork it
    "str": lambda: "x" * 10**6,
    "lines": lambda: "\x00\n" * 10**6,
    "bytes": lambda: b"\x00" * 10**6,
    "bytearray": lambda: bytearray(10**6),
    "array": lambda: array.array("d", bytes(8 * 10**6)),
    "numpy": lambda: np.zeros(10**6),
    "Table": calls.Table,
    "list": lambda: list(range(10**6)),
    "Rows": lambda: Rows(range(10**6)),
    "set": lambda: set(range(10**6)),
    "dict": lambda: dict.fromkeys(range(10**6)),
    "deque": lambda: collections.deque(range(10**6)),
    "lists": lambda: [["x" * 10**6] * 10**6] * 10**6,
    "Named": lambda: Named("x" * 10**6, 1),
    "int": lambda: 10**5000,
    "loop": lambda: LOOP,
    "tuple": lambda: ("x" * 70, calls.Table(), b"x" * 70),
}


@pytest.mark.parametrize("name", HUGE)
def test_any_item_is_shown_in_one_short_line(name):
    text = shorten(HUGE[name]())
    assert len(text) <= 60
    assert len(text.splitlines()) == 1


def test_only_a_few_members_of_a_large_container_are_shown():
    class Member:
        shown = 0

        def __repr__(self):
            Member.shown += 1
            return "m"

    for make in (list, tuple, set, frozenset, collections.deque, Rows):
        Member.shown = 0
        shorten(make(Member() for _ in range(1000)))
        assert 0 < Member.shown < 10


def test_the_ends_of_a_long_text_are_shown():
    text = shorten("/" + "x" * 500 + "/page-7.png")
    assert text.startswith("'/xxx")
    assert text.endswith("/page-7.png'")


def test_an_item_is_asked_for_nothing_but_its_repr():
    class Lazy:
        def __getattribute__(self, name):
            raise AssertionError(name)

        def __repr__(self):
            return "Lazy"

    assert shorten(Lazy()) == "Lazy"


def test_the_repr_of_a_failure_is_one_line():
    text = repr(failure(calls.Table(), ValueError(calls.Table())))
    assert len(text.splitlines()) == 1
    assert len(text) < 400
    assert "no" in repr(failure())
