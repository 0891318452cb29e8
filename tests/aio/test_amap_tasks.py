"""`ordered_amap`: each item has a task and a context of its own."""

import asyncio
import contextvars
import weakref

import pytest

from coroutines import double, oops
from event_loops import collect, settled
from inturn import Failure, ordered_amap, retry

# ---- a task and a context for each item ----------------------------------------------------------


var = contextvars.ContextVar("var", default="none")


@pytest.mark.parametrize("wait", [False, True])
def test_g21_g31_the_consumers_context_is_seen_and_changes_stay_with_the_item(run, wait):
    async def main():
        async def fn(x):
            before = var.get()
            var.set(x)
            if wait:
                await asyncio.sleep(0)
                assert var.get() == x
            return before

        results = ordered_amap(fn, range(20), concurrency=2)
        var.set("consumer's")
        assert await collect(results) == ["consumer's"] * 20
        assert var.get() == "consumer's"

    run(main)


def test_g31_the_context_reaches_an_async_source(run):
    async def main():
        async def items():
            yield var.get()
            var.set("changed")

        var.set("mine")
        assert await collect(ordered_amap(lambda x: asyncio.sleep(0, x), items())) == ["mine"]
        assert var.get() == "mine"

    run(main)


@pytest.mark.parametrize("wait", [False, True])
def test_g31_an_item_that_cancels_itself_is_a_failure_like_any_other(run, wait):
    async def main():
        async def fn(x):
            if x % 2:
                asyncio.current_task().cancel()
            if wait:
                await asyncio.sleep(0)
            return x

        results = await collect(ordered_amap(fn, range(6), concurrency=1, on_error="return"))
        assert [type(each.error) if isinstance(each, Failure) else each for each in results] == [
            each for x in (0, 2, 4) for each in (x, asyncio.CancelledError)
        ]
        assert not asyncio.current_task().cancelling()

    run(main)


def test_g31_a_cancelled_error_goes_through_raise(run):
    async def main():
        async def fn(x):
            raise asyncio.CancelledError

        results = ordered_amap(fn, range(6))
        with pytest.raises(asyncio.CancelledError) as caught:
            await anext(results)
        assert caught.value.__notes__ == ["item 0: 0"]
        assert not asyncio.current_task().cancelling()

    run(main)


def test_g31_a_retry_after_a_cancellation(run):
    async def main():
        seen = []

        async def fn(x):
            seen.append(asyncio.current_task().cancelling())
            if len(seen) == 1:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            return x

        policy = retry(attempts=2, on=asyncio.CancelledError, backoff=0)
        assert await collect(ordered_amap(fn, [1], on_error=policy)) == [1]
        assert seen == [0, 0]

    run(main)


def test_g31_requests_to_cancel_never_pass_to_the_next_item(run):
    async def main():
        async def fn(x):
            task = asyncio.current_task()
            assert not task.cancelling()
            if x % 3 == 0:
                task.cancel()
                task.uncancel()  # on 3.11 and 3.12 the cancellation comes all the same
            elif x % 3 == 1:
                task.cancel()
            else:
                await asyncio.sleep(0)
            return x

        results = await collect(ordered_amap(fn, range(30), concurrency=2, on_error="return"))
        assert [x for x in results if not isinstance(x, Failure) and x % 3 == 2] == [*range(2, 30, 3)]
        assert all(isinstance(results[x], Failure) for x in range(1, 30, 3))

    run(main)


def test_g31_who_holds_the_task_of_an_item_that_is_over_cannot_hurt_another(run):
    async def main():
        loop = asyncio.get_running_loop()
        tasks = []

        async def fn(x):
            if x < 5:
                loop.call_soon(asyncio.current_task().cancel)
                return x
            if x < 10:
                tasks.append(asyncio.current_task())
                return x
            if x == 10:
                for task in tasks:
                    task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return x

        assert await collect(ordered_amap(fn, range(30), concurrency=3)) == [*range(30)]
        assert len(set(tasks)) == 5

    run(main)


def test_g31_the_task_is_the_same_from_first_to_last_and_its_own_while_it_waits(run):
    async def main():
        tasks = {}

        async def fn(x):
            task = asyncio.current_task()
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            tasks[x] = task

        await collect(ordered_amap(fn, range(20), concurrency=4))
        assert len(set(tasks.values())) == 20

    run(main)


@pytest.mark.parametrize("sign", ["name", "callback", "weak reference"])
def test_g31_what_a_call_leaves_on_its_task_is_not_seen_by_the_next(run, sign):
    async def main():
        done, weak = [], weakref.WeakKeyDictionary()

        async def fn(x):
            task = asyncio.current_task()
            if sign == "name":
                assert task.get_name() != "mine"
                task.set_name("mine")
            elif sign == "callback":
                task.add_done_callback(lambda _, x=x: done.append(x))
            else:
                assert task not in weak
                weak[task] = x

        await collect(ordered_amap(fn, range(10), concurrency=1))
        await settled()
        assert done == ([*range(10)] if sign == "callback" else [])

    run(main)


@pytest.mark.parametrize("wait", [False, True])
def test_timeouts_and_task_groups_work_inside_fn(run, wait):
    async def main():
        async def child(x):
            if wait:
                await asyncio.sleep(0)
            return x

        async def fn(x):
            async with asyncio.timeout(10):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(child(x)) for _ in range(2)]
                if x % 2 and wait:
                    try:
                        async with asyncio.timeout(0):
                            await asyncio.sleep(10)
                    except TimeoutError:
                        return "late"
            return sum(task.result() for task in tasks)

        expected = ["late" if x % 2 and wait else 2 * x for x in range(10)]
        assert await collect(ordered_amap(fn, range(10), concurrency=3)) == expected

    run(main)


def test_a_child_that_fails_costs_its_item_only(run):
    async def main():
        async def fn(x):
            async with asyncio.TaskGroup() as group:
                group.create_task(oops(x) if x == 1 else double(x))
                await asyncio.sleep(0)
            return x

        got = await collect(ordered_amap(fn, range(3), on_error="return"))
        assert [type(each) for each in got] == [int, Failure, int]
        assert isinstance(got[1].error, ExceptionGroup)

    run(main)
