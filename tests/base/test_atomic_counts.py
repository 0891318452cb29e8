"""What differs without the GIL."""

import threading

from inturn._base.atomic import Total


def test_no_amount_is_lost_that_several_threads_add():
    total, start = Total(), threading.Barrier(4)

    def add():
        start.wait()
        for _ in range(20_000):
            total.add(0.5)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total.value == 40_000
