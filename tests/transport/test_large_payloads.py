"""Large payloads, and shared memory, descriptors and kernel features that are not to be had."""

import errno
import os
import sys
from functools import partial

import pytest

from inturn import Processes, WorkerDied, ordered_map

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")
FORK = Processes(start_method="fork")


def failure_of(failure):
    return failure.error


# large payloads


def same(x):
    return x


SIZES = [0, 1, 1 << 12, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 20) + 3, 5_000_000]


@pytest.mark.parametrize("chunksize", [None, 1, 4])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_buffers_arrive_as_they_were_sent(kind, chunksize):
    items = [kind(os.urandom(size)) for size in SIZES * 2]
    results = list(ordered_map(same, items, executor=FORK, concurrency=2, chunksize=chunksize))
    assert results == items
    assert {type(each) for each in results} == {kind}


@pytest.mark.parametrize("chunksize", [None, 1, 4])
def test_large_texts_and_containers_arrive_as_they_were_sent(chunksize):
    items = [["ä" * size, {"key": bytes(size), "more": [bytearray(size)]}] for size in SIZES]
    assert list(ordered_map(same, items, executor=FORK, concurrency=2, chunksize=chunksize)) == items


def test_large_arrays_arrive_as_they_were_sent():
    np = pytest.importorskip("numpy")
    items = [np.arange(size, dtype=kind) for size in SIZES for kind in ("u1", "f8")]
    items += [np.arange(2_000_000).reshape(1000, 2000).T, np.arange(400_000)[::2], np.zeros((0, 3))]
    frozen = np.arange(300_000)
    frozen.flags.writeable = False
    items.append(frozen)
    results = list(ordered_map(same, items, executor=FORK, concurrency=2))
    for item, result in zip(items, results, strict=True):
        assert (item.dtype, item.shape) == (result.dtype, result.shape)
        assert np.array_equal(item, result)
        assert result.flags.writeable == item.flags.writeable


def test_a_delivered_array_is_its_own():
    """Writing into one result, or into an item in the worker, changes nothing else."""
    np = pytest.importorskip("numpy")
    items = [np.full(500_000, i) for i in range(12)]
    results = []
    for i, result in enumerate(ordered_map(spoiled, items, executor=FORK, concurrency=2)):
        result += 100
        results.append(result)
        assert (items[i] == i).all()
    for i, result in enumerate(results):
        assert (result == i + 101).all()


_before: list = []


def spoiled(array):
    for i, each in _before:
        assert (each == i).all(), "what a worker keeps must not change"
    copy = array + 1
    _before.append((array[0], array))
    return copy


def test_a_payload_may_be_larger_than_what_a_hold_takes(monkeypatch):
    from inturn._transport import shared_memory as _segments

    monkeypatch.setattr(_segments, "MOST", 1 << 20)
    items = [bytes([i]) * 400_000 for i in range(20)]
    assert list(ordered_map(same, items, executor=FORK, concurrency=1, chunksize=10)) == items


def test_g28_a_full_shared_memory_is_got_round(monkeypatch):
    from inturn._transport import shared_memory as _segments

    real = _segments._allocate

    def full(fd, begin, end):
        if end > 1 << 16:
            raise OSError(28, "No space left on device")
        real(fd, begin, end)

    monkeypatch.setattr(_segments, "_allocate", full)
    items = [bytes([i]) * 400_000 for i in range(20)]
    assert list(ordered_map(same, items, executor=FORK, concurrency=2)) == items


def test_g28_memory_is_had_where_there_is_no_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    items = [bytes([i]) * 400_000 for i in range(10)]
    assert list(ordered_map(same, items, executor=FORK, concurrency=2)) == items


def test_g28_without_a_descriptor_for_shared_memory_the_run_says_so(monkeypatch):
    def refused(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    with pytest.raises(OSError, match="Too many open files"):
        list(ordered_map(same, range(3), executor=FORK))


def test_the_end_of_a_process_is_noticed_where_there_is_no_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    results = list(ordered_map(partial(dies, {3}), range(8), executor=FORK, concurrency=2, on_error=failure_of))
    assert isinstance(results.pop(3), WorkerDied)
    assert results == [0, 1, 2, 4, 5, 6, 7]


def dies(bad, i):
    if i in bad:
        os._exit(2)
    return i
