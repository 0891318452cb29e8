"""`trace`: when each item was pulled, started, finished and delivered, and by which worker; as a file and a picture."""

import asyncio
import collections
import gc
import itertools
import json
import re
import threading
import weakref
import xml.etree.ElementTree as ET
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from functions_for_workers import double, fail_at, pair
from inturn import ordered_amap, ordered_flat_map, ordered_gather, ordered_map, retry, sentinel
from inturn._core.consumer import Watched
from inturn._model import recorder as recorder_module
from inturn._model.recorder import Recorder
from waiting import SHORT, Background, Gate, Tally, spend, wait_until


def check(trace, indices):
    """What holds for every trace of a run that has ended."""
    items = list(trace)
    assert [item.index for item in items] == sorted(item.index for item in items)
    assert {item.index for item in items if item.outcome == "done"} == set(indices)
    for item in items:
        assert 0 <= item.pulled <= item.started <= item.finished
        assert item.delivered is None or item.finished <= item.delivered
    return items


@pytest.mark.parametrize("window", [1, 5, 30])
def test_a_trace_tells_of_each_item_when_it_was_pulled_started_finished_and_delivered(kinds, window):
    run = kinds.map(double, range(12), window=window, trace=True)
    assert list(run) == [double(i) for i in range(12)]
    items = check(run.trace, range(12))
    assert len(items) == len(run.trace) == 12
    delivered = [item.delivered for item in items]
    assert delivered == sorted(delivered)
    assert all(item.attempt == 1 for item in items)
    assert run.stats.elapsed >= delivered[-1]


def test_a_trace_of_many_tiny_items_keeps_their_batches(kinds):
    run = kinds.map(double, range(3000), concurrency=2, trace=True)
    assert sum(run) == sum(double(i) for i in range(3000))
    items = check(run.trace, range(3000))
    for _, calls in itertools.groupby(
        sorted(items, key=lambda item: (item.worker or 0, item.started)), lambda i: i.worker
    ):
        ends = 0.0
        for call in calls:
            if call.worker is not None:
                assert call.started >= ends - 1e-9, "a worker makes one call at a time"
            ends = call.finished


@pytest.mark.drivers("its calls are tasks of one thread, which the gate would hold", in_loop=False)
def test_a_trace_numbers_the_workers_in_the_order_of_their_first_calls(overlapping):
    gate, begun = Gate(), Tally()

    def call(i):
        begun.add(i)
        if i < 3:
            gate.wait()
        return i

    run = overlapping.map(call, range(9), concurrency=3, window=9, trace=True)
    with run:
        opener = threading.Thread(target=lambda: (begun.wait(3), gate.open()))
        opener.start()
        assert list(run) == [*range(9)]
        opener.join()
    items = check(run.trace, range(9))
    assert {item.worker for item in items} == {1, 2, 3}
    assert {items[i].worker for i in range(3)} == {1, 2, 3}, "three that run at once have three workers"


def test_a_trace_has_each_attempt(kinds):
    policy = retry(attempts=3, backoff=0, then="skip")
    run = kinds.map(partial(fail_at, frozenset({2})), range(5), on_error=policy, trace=True)
    assert len(list(run)) == 4
    items = check(run.trace, {0, 1, 3, 4})
    tried = [item for item in items if item.index == 2]
    assert [(item.attempt, item.outcome) for item in tried] == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert [item.delivered for item in tried] == [None] * 3
    assert all(before.finished <= after.started for before, after in itertools.pairwise(tried))


def test_a_call_whose_result_was_delivered_is_done_even_if_its_worker_notes_its_end_after_the_run():
    cleared = Gate()
    run = ordered_map(double, range(2), concurrency=1, chunksize=1, trace=True)
    ended, clear = run._run.job.trace.ended, run._run.window.clear

    def late(chunk, since, now):
        if chunk.index == 1:
            cleared.wait()
        ended(chunk, since, now)

    def clear_and_tell():
        clear()
        cleared.open()

    run._run.job.trace.ended, run._run.window.clear = late, clear_and_tell
    assert next(run) == 0
    wait_until(lambda: run.stats.waiting == 1)
    assert list(run) == [2]
    check(run.trace, {0, 1})


def test_a_trace_shows_a_call_that_its_time_limit_has_ended():
    gate = Gate()

    def call(i):
        if i == 1:
            gate.wait()
        return i

    run = ordered_map(call, range(3), timeout=SHORT, on_error="skip", concurrency=1, trace=True)
    assert list(run) == [0, 2]
    gate.open()
    items = check(run.trace, {0, 2})
    assert [item.outcome for item in items] == ["done", "failed", "done"]
    assert items[1].finished - items[1].started >= SHORT * 0.99


def test_a_trace_of_a_run_that_was_closed_has_what_ended(inside):
    run = inside.map(double, itertools.count(), window=5, trace=True)
    assert [next(run), next(run)] == [double(0), double(1)]
    run.close()
    items = list(run.trace)
    assert [item.delivered is not None for item in items[:2]] == [True, True]
    assert len(items) <= 2 + 5
    assert "cancelled" in run.trace.to_svg() or all(item.outcome == "done" for item in items)


def test_a_trace_of_executors_in_other_processes_names_no_worker():
    with ProcessPoolExecutor(1) as executor:
        run = ordered_map(double, range(5), executor=executor, trace=True)
        assert len(list(run)) == 5
    items = check(run.trace, range(5))
    assert {item.worker for item in items} == {None}
    assert "call 1" in run.trace.to_svg()


@pytest.mark.parametrize("executor", ["thread", "serial", "process"])
def test_a_trace_of_a_flat_map_has_a_call_for_each_item_and_a_delivery_for_each_element(executor):
    run = ordered_flat_map(pair, range(6), range(6), executor=executor, concurrency=2, trace=True)
    elements = list(run)
    assert len(elements) == 12
    items = check(run.trace, range(6))
    assert len(items) == 6
    assert [index for index, _ in run.trace.deliveries()] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_trace_of_a_flat_map_knows_which_item_a_value_was_delivered_for():
    def call(i):
        if i == 3:
            raise LookupError
        return [i]

    run = ordered_flat_map(call, range(4), on_error=sentinel("instead"), trace=True)
    assert list(run) == [0, 1, 2, "instead"]
    assert [index for index, _ in run.trace.deliveries()] == [0, 1, 2, 3]


def test_a_trace_of_an_async_source_tells_when_items_were_pulled():
    async def source():
        for i in range(5):
            yield i
            await asyncio.sleep(0)

    async def call(i):
        await asyncio.sleep(0)
        return i

    async def main():
        async with ordered_amap(call, source(), concurrency=2, trace=True) as run:
            assert [i async for i in run] == [*range(5)]
            return run.trace

    items = check(asyncio.run(main()), range(5))
    assert [item.pulled for item in items] == sorted(item.pulled for item in items)
    assert {item.worker for item in items} <= {1, 2}


# ---- what it costs, what it keeps ----------------------------------------------------------------


def test_without_trace_nothing_stands_in_the_way():
    run = ordered_map(double, range(5000), concurrency=2)
    for _ in range(1000):
        next(run)
    job = run._run.job
    assert job.trace is None
    assert not isinstance(run._held, Watched)
    assert run._run.source._add == run._run.window.add
    run.close()


def test_a_run_without_trace_says_how_to_get_one():
    run = ordered_map(double, range(3))
    with pytest.raises(AttributeError, match="this ordered_map is not traced: give it trace=True"):
        run.trace
    assert not hasattr(run, "trace")


@pytest.mark.parametrize("given", [1, None, "yes", 0.5])
def test_invalid_trace_is_a_type_error_at_the_call(given):
    with pytest.raises(TypeError, match="trace must be a bool"):
        ordered_map(double, range(3), trace=given)


def test_ordered_gather_takes_no_trace_since_it_returns_a_list():
    with pytest.raises(TypeError, match="trace"):
        asyncio.run(ordered_gather(double, range(3), trace=True))


class Thing:
    pass


class Oops(Exception):
    pass


def test_g12_a_trace_keeps_no_item_result_or_error(inside):
    references = []

    def call(item):
        result = Thing()
        references.extend([weakref.ref(item), weakref.ref(result)])
        if len(references) in {20, 41}:
            error = Oops()
            references.append(weakref.ref(error))
            raise error
        return result

    run = inside.map(call, (Thing() for _ in range(30)), window=4, concurrency=2, trace=True, on_error="skip")
    collections.deque(run, maxlen=0)
    run.close()
    gc.collect()
    assert len(run.trace) == 30
    assert len(references) == 60 + 2
    assert [each() for each in references if each() is not None] == []


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_trace_keeps_the_last_calls_only(monkeypatch, concurrency):
    monkeypatch.setattr(recorder_module, "MOST", 50)
    run = ordered_map(double, range(1000), concurrency=concurrency, trace=True)
    for _ in run:
        pass
    indices = [item.index for item in run.trace]
    if concurrency == 1:
        assert indices == list(range(950, 1000))
    else:  # the last chunk that ends need not be the last of the source
        assert len(indices) == 50
    recorder = run._run.job.trace
    assert [
        len(each.latest()) <= 50 and len(each) <= 55
        for each in (recorder.calls, recorder.pulls, recorder.deliveries, recorder.waits)
    ] == [True] * 4
    assert not recorder._open


# ---- reports from other processes ----------------------------------------------------------------


class FakeChunk:
    index, attempt = 7, 1

    def __init__(self):
        self.todo, self.out = iter(()), []


def test_the_time_between_two_reports_belongs_to_the_items_in_between():
    recorder, chunk = Recorder(), FakeChunk()
    recorder.begun(chunk, 99, lambda: 100.0)
    recorder.away(chunk)
    recorder.reported(chunk, 2, 4.0)
    recorder.reported(chunk, 2, 5.0)  # one that brings nothing
    recorder.reported(chunk, 5, 10.0)
    chunk.out = [None] * 5
    recorder.ended(chunk, 100.0, 110.0)
    assert [(call.index, call.started, call.finished) for call in recorder.calls] == [
        (7, 100.0, 102.0),
        (8, 102.0, 104.0),
        (9, 104.0, 106.0),
        (10, 106.0, 108.0),
        (11, 108.0, 110.0),
    ]


def test_a_chunk_whose_process_died_has_the_items_that_have_an_outcome():
    recorder, chunk = Recorder(), FakeChunk()
    recorder.begun(chunk, 99, lambda: 100.0)
    recorder.away(chunk)
    recorder.failed(chunk, 0, 103.0)
    chunk.out = [None]
    recorder.ended(chunk, 100.0, 103.0)
    assert [(call.index, call.started, call.finished, call.outcome) for call in recorder.calls] == [
        (7, 100.0, 103.0, "failed")
    ]


def test_an_attempt_that_failed_has_finished_then_and_not_when_its_chunk_has_ended():
    """Its next attempt may begin in between."""
    recorder, chunk = Recorder(), FakeChunk()
    chunk.todo = iter(["an item"])
    recorder.begun(chunk, 99, lambda: 100.0)
    next(iter(chunk.todo))
    recorder.failed(chunk, 0, 102.0)
    chunk.out = [None]
    recorder.ended(chunk, 100.0, 103.0)
    assert [(call.index, call.started, call.finished) for call in recorder.calls] == [(7, 100.0, 102.0)]


# ---- the file and the picture --------------------------------------------------------------------


def held_up():
    """A run whose head, item 1, ends when all others in the window have."""
    gate, ended = Gate(), Tally()

    def call(i):
        if i == 1:
            gate.wait()
        spend(0.001)
        ended.add(i)
        return i

    with ordered_map(call, range(8), concurrency=2, window=8, chunksize=1, trace=True) as run:

        def open_when_all_others_have_ended():
            ended.wait(7)
            wait_until(lambda: list(run._run.job.sleeping) == [1], "the consumer waits for item 1")
            spend(0.002)
            gate.open()

        opener = threading.Thread(target=open_when_all_others_have_ended)
        opener.start()
        assert list(run) == [*range(8)]
        opener.join()
    return run


def test_the_file_is_in_the_trace_event_format(tmp_path):
    run = held_up()
    run.trace.save(tmp_path / "t.json")
    text = json.loads((tmp_path / "t.json").read_text())
    events = text["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert sorted(event["name"] for event in slices if event["cat"] == "call") == [f"item {i}" for i in range(8)]
    assert all(event["dur"] >= 0 and event["ts"] >= 0 and event["pid"] == 1 for event in slices)
    assert "waits for item 1" in {event["name"] for event in slices if event["cat"] == "wait"}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {0: "consumer", 1: "worker 1", 2: "worker 2"}
    assert {event["tid"] for event in events} == set(names)
    instants = [event["name"] for event in events if event["ph"] == "i"]
    assert instants == [f"item {i} delivered" for i in range(8)]
    begins = [event["id"] for event in events if event["ph"] == "b"]
    assert sorted(begins) == sorted(event["id"] for event in events if event["ph"] == "e")
    assert set(range(2, 8)) <= set(begins), "those behind the head wait for their turn"
    stamps = [event["ts"] for event in events if event["ph"] != "M"]
    assert stamps == sorted(stamps)


SVG = "{http://www.w3.org/2000/svg}"


def rects(svg, kind):
    return [each for each in ET.fromstring(svg).iter(f"{SVG}rect") if each.get("class") == kind]


def test_the_picture_shows_workers_calls_deliveries_and_the_head_that_holds_up_the_rest(tmp_path):
    run = held_up()
    svg = run.trace.to_svg(tmp_path / "t.svg")
    assert (tmp_path / "t.svg").read_text(encoding="utf-8") == svg == run.trace._repr_svg_()
    root = ET.fromstring(svg)
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"worker 1", "worker 2", "consumer", "ordered_map of held_up.<locals>.call"} <= set(texts)
    titles = [each.text for each in root.iter(f"{SVG}title")]
    assert sum(text.startswith("item ") for text in titles) == 8
    assert len(rects(svg, "done")) == 8 + 1  # one in the legend
    assert len(rects(svg, "head")) >= 1 + 1, "a part of item 1, and the legend"
    assert "prefers-color-scheme:dark" in svg
    for reference in ("href", "url(", "@import", "<script", "<image"):
        assert reference not in svg


def test_no_head_is_shown_where_nothing_waits_behind_one():
    with ordered_map(double, range(8), concurrency=1, chunksize=1, window=1, trace=True) as run:
        for _ in run:
            pass
    assert rects(run.trace.to_svg(), "head") == []


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_the_picture_is_small_however_many_items_there_are(count):
    run = ordered_map(double, range(count), concurrency=2, trace=True)
    list(run)
    svg = run.trace.to_svg()
    ET.fromstring(svg)
    assert len(svg) < 300_000
    assert "nan" not in svg


def test_a_trace_can_be_read_before_the_run_begins_and_while_it_goes_on(kinds):
    run = kinds.map(double, range(50), trace=True)
    assert list(run.trace) == []
    ET.fromstring(run.trace.to_svg())
    for _ in range(20):
        next(run)
        assert len(list(run.trace)) <= 50
    ET.fromstring(run.trace.to_svg())
    run.close()


def test_a_name_with_markup_is_escaped():
    def call(i):
        return i

    call.__qualname__ = call.__name__ = "<b>&"
    run = ordered_map(call, range(3), trace=True)
    list(run)
    assert "<b>" not in run.trace.to_svg()
    assert "<b>&" not in run._repr_html_()
    assert repr(run.trace) == "<trace of ordered_map of <b>&: 3 calls>"


def test_a_run_shows_its_counts_in_a_notebook(kinds):
    run = kinds.map(partial(fail_at, frozenset({2})), range(5), on_error="skip")
    html = run._repr_html_()
    assert "0 of 5" in html
    assert not re.search("failed|skipped|retried", html)
    assert len(list(run)) == 4
    html = run._repr_html_()
    ET.fromstring(html.replace("<br>", "<br/>"))
    for text in ("5 of 5", "delivered", "failed", "skipped", "workers busy"):
        assert text in html
    assert "retried" not in html


def test_g23_a_trace_can_be_read_while_other_threads_write_it(apart):
    """Without the GIL, too, where a deque cannot be copied meanwhile."""
    over = Gate()

    def read():
        while not over.is_open:
            assert len(list(run.trace)) <= 300
            assert run.trace.deliveries() is not run.trace.waits()

    run = apart.map(double, iter(range(300)), trace=True, window=64)
    reader = Background(read)
    assert list(run) == [2 * i for i in range(300)]
    over.open()
    reader.result()
    run.close()
