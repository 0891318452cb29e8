"""The moments between two threads: what one has just not seen, the other one tells it.

Each test stops one thread at such a moment, by a container that lets the other thread go on when it is written to.
"""

import pytest

from inturn import ordered_map, retry
from waiting import Gate, Source, Tally, wait_until


def test_g01_a_head_that_completes_just_before_the_consumer_sleeps_is_seen():
    gate = Gate()
    run = ordered_map(lambda x: gate.wait() or x, [7])
    job = run._run.job

    class Sleeping(list):
        def append(self, index):
            gate.open()
            wait_until(lambda: job.pool._idle, "the call has ended, and its worker has found nobody to wake")
            super().append(index)

    job.sleeping = Sleeping()
    assert next(run) == 7
    run.close()


def test_g07_an_item_that_comes_just_before_a_worker_sleeps_is_seen():
    gate, came = Gate(), Gate()

    def source():
        yield 0
        gate.wait()
        yield 1

    class Idle(dict):
        def __setitem__(self, slot, value):
            if not gate.is_open:
                gate.open()
                came.wait()  # the consumer has pulled item 1, and has found no idle worker
            super().__setitem__(slot, value)

    run = ordered_map(abs, source(), concurrency=1)
    run._run.job.pool._idle = Idle()
    assert next(run) == 0
    came.open()
    assert next(run) == 1
    run.close()


def test_g09_a_failure_stops_what_later_chunks_have_not_started():
    begun, gates = Tally(), {2: Gate(), 4: Gate()}

    def call(x):
        begun.add(x)
        if x in gates:
            gates[x].wait()
        if x == 2:
            raise LookupError
        return x

    run = ordered_map(call, range(6), concurrency=3, window=6, chunksize=2)
    assert next(run) == 0
    wait_until(lambda: {2, 4} <= set(begun.seen))
    gates[2].open()
    wait_until(lambda: run.stats.waiting == 2, "the failure is known: it waits behind item 1")
    gates[4].open()
    wait_until(lambda: not run.stats.running)
    assert 5 not in begun.seen
    run.close()


def test_g13_a_chunk_that_is_claimed_while_the_run_ends_is_not_run():
    begun = Tally()
    run = ordered_map(begun.add, range(4))
    job = run._run.job
    claim = job.claim

    def claim_as_the_run_ends(*args):
        chunk = claim(*args)
        job.stop()
        return chunk

    job.claim = claim_as_the_run_ends
    assert next(run, None) is None
    run.close()
    assert not begun.seen


def test_g13_closing_stops_what_chunks_have_not_started():
    begun, gate = Tally(), Gate()

    def call(x):
        begun.add(x)
        gate.wait()
        return x

    run = ordered_map(call, range(4), concurrency=1, window=4, chunksize=4)
    run._run.begin()
    run._run.advance()
    begun.wait(1)
    run._run.job.stop()
    gate.open()
    run.close()
    assert begun.seen == [0]


def test_g09_a_retry_that_gives_up_and_raises_lets_nothing_later_start():
    begun, gate, all_pulled = Tally(), Gate(), Gate()
    source = Source(range(4), lambda k: all_pulled.open() if k == 3 else None)

    def call(x):
        begun.add(x)
        if x == 0:
            all_pulled.wait()
        if x == 1:
            gate.wait()
            raise LookupError
        return x

    run = ordered_map(call, source, concurrency=1, window=4, chunksize=1, on_error=retry(attempts=1))
    assert next(run) == 0
    begun.wait(2)
    gate.open()
    wait_until(lambda: run._run.job.pool._idle)
    assert begun.seen == [0, 1]
    run.close()


def test_g09_an_error_that_ends_the_run_while_a_result_is_delivered_is_raised_by_the_next_next():
    run = ordered_map(abs, [1, 2])
    advance = run._run.advance

    def advance_as_it_fails():
        step = advance()
        if step == 1:
            run._run.job.crash(LookupError("it has no turn"))
        return step

    run._run.advance = advance_as_it_fails
    assert next(run) == 1
    with pytest.raises(LookupError):
        next(run)
    run.close()
