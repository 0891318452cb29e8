"""The ways to break the library: what is replaced in which wing, and the test that must fail then."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One way.

    Attributes:
        what: What is wrong then, in words.
        wing: The sub-package of `inturn`.
        old: The text that is replaced; it occurs once in the wing, in whatever file.
        new: What takes its place.
        test: The test that fails, as ``file::name`` below `tests`.
    """

    what: str
    wing: str
    old: str
    new: str
    test: str


BOUNDS = "contract/test_bounds.py::"
POLICIES = "contract/test_policies.py::"
DEATHS = "processes/test_worker_deaths.py::"

MUTATIONS = [
    # ---- the engine ------------------------------------------------------------------------------
    Mutation(
        "one item too many is pulled",
        "_engine",
        "self.limit - (self.pulled - taken)",
        "self.limit + 1 - (self.pulled - taken)",
        BOUNDS + "test_g03_the_bound_is_reached_and_holds_while_next_waits",
    ),
    Mutation(
        "results overtake a chunk that still runs",
        "_engine",
        "if self._position < node.size:",
        "if self._position < 0:",
        "contract/test_order.py::test_g01_results_come_in_input_order_though_calls_end_in_reverse",
    ),
    Mutation(
        "items behind a failure that ends the run are claimed",
        "_engine",
        "backlog.index > min(self.last_index, most):",
        "backlog.index > most:",
        "engine/test_window.py::test_g09_nothing_behind_a_failure_that_ends_the_run_can_be_claimed",
    ),
    Mutation(
        "the source is pulled though a failure will end the run",
        "_engine",
        "if self.room() > 0 and self.last_index == NEVER else Now.WAIT",
        "if self.room() > 0 else Now.WAIT",
        "contract/test_end_of_a_run.py::test_g09_once_a_failure_is_known_nothing_later_is_pulled",
    ),
    Mutation(
        "the last item of a feeder is missed if it comes while the end is looked for",
        "_engine",
        "        exhausted = self.exhausted  # first: a feeder may add the last item just now\n"
        "        if self.taken == self.pulled:\n            if not exhausted:",
        "        if self.taken == self.pulled:\n            if not self.exhausted:",
        "contract/test_worst_moments.py::test_g01_the_last_item_of_a_live_source_that_comes_while_the_end_is_looked_for",
    ),
    Mutation(
        "what is taken back gets the wrong place",
        "_engine",
        "Backlog(chunk.index + chunk.size - len(rest), rest, chunk)",
        "Backlog(chunk.index + chunk.size, rest, chunk)",
        "engine/test_window.py::TestWindow",
    ),
    Mutation(
        "a delivered result is kept",
        "_engine",
        "self._put(None)",
        "pass",
        "engine/test_window.py::test_g12_a_chunk_that_still_runs_keeps_no_result_that_was_delivered",
    ),
    Mutation(
        "a default window grows without end",
        "_engine",
        "self.limit = min(self._most, self.limit * 2)",
        "self.limit *= 2",
        BOUNDS + "test_g04_the_window_never_grows_past_4096",
    ),
    Mutation(
        "a default window grows though results are large",
        "_engine",
        "if tiny and max(self._item_bytes, self._result_bytes) <= _SMALL_BYTES:",
        "if tiny and self._item_bytes <= _SMALL_BYTES:",
        BOUNDS + "test_g04_the_window_does_not_grow_while_results_are_large",
    ),
    Mutation(
        "heavy results travel in batches",
        "_engine",
        "light = _BATCH_BYTES // max(self._item_bytes, self._result_bytes, 1)",
        "light = _BATCH_BYTES // max(self._item_bytes, 1)",
        "engine/test_window.py::test_g26_heavy_items_and_results_travel_alone",
    ),
    Mutation(
        "an explicit chunk is sent before it is full",
        "_engine",
        "elif there < size and backlog is self._main and not self.exhausted:",
        "elif there < size and backlog is None:",
        "engine/test_window.py::TestWindow",
    ),
    Mutation(
        "a lane holds one element too many",
        "_engine",
        "return len(self.buffer) >= self.size",
        "return len(self.buffer) > self.size",
        "sync/test_flat_map.py::test_every_item_produces_at_most_buffer_elements_ahead_and_then_waits",
    ),
    Mutation(
        "an item that has made an element may run again",
        "_engine",
        "Phase.UNDECIDED if undecided and not self.made else Phase.ENDED",
        "Phase.UNDECIDED if undecided else Phase.ENDED",
        "engine/test_lanes.py::test_a_lane_that_has_made_an_element_never_is_undecided",
    ),
    # ---- the decide loop and the consumer's side -------------------------------------------------
    Mutation(
        "a ready head waits for pull after pull",
        "_core",
        "if not self._exchanged and self.source is not None",
        "if self.source is not None",
        "contract/test_pulling.py::test_g06_a_head_that_became_ready_during_a_pull_is_delivered_before_the_next_pull",
    ),
    Mutation(
        "the policy is asked about an error of the source",
        "_core",
        "if err.kind is Kind.FATAL or err.kind is Kind.SOURCE:",
        "if err.kind is Kind.FATAL:",
        "contract/test_end_of_a_run.py::"
        "test_g10_an_error_of_the_source_surfaces_in_its_turn_and_no_policy_applies_to_it",
    ),
    Mutation(
        "the policy is asked about SystemExit",
        "_core",
        "if err.kind is Kind.PASSING or self.policy is RAISE or",
        "if self.policy is RAISE or",
        "contract/test_errors.py::test_g11_system_exit_and_keyboard_interrupt_of_fn_arrive_in_turn_past_every_policy",
    ),
    Mutation(
        "the error of a policy is not chained to that of the item",
        "_core",
        "if raised is not err.error and",
        "if raised is None and",
        POLICIES + "test_a_policy_that_raises_ends_the_run_and_its_error_is_chained_to_that_of_the_item",
    ),
    Mutation(
        "the deadline never ends a run",
        "_core",
        "if left is not None and left <= 0:",
        "if left is None and deadline:",
        "contract/test_deadline.py::test_g18_a_deadline_ends_the_run_when_the_head_is_not_ready",
    ),
    Mutation(
        "the source is pulled after the deadline",
        "_core",
        "        if self.job.may_start():\n            begun",
        "        if self.job:\n            begun",
        "contract/test_deadline.py::test_g18_nothing_is_pulled_or_started_after_the_deadline",
    ),
    Mutation(
        "items that are left out are counted as delivered",
        "_core",
        "            self.skipped += 1\n",
        "",
        "model/test_stats.py::test_stats_count_what_was_pulled_delivered_failed_and_skipped",
    ),
    Mutation(
        "a head that is complete before the consumer sleeps wakes nobody",
        "_core",
        "ready = window.now() in (Now.DELIVER, Now.DONE) or job.end is not None",
        "ready = job.end is not None",
        "core/test_handing_over.py::test_g01_a_head_that_completes_just_before_the_consumer_sleeps_is_seen",
    ),
    Mutation(
        "a second consumer is let in",
        "_sync",
        "            if self._consumer.setdefault(None, me) is me:\n                step",
        "            if self._consumer.setdefault(None, me):\n                step",
        "contract/test_several_consumers.py::test_g23_a_second_consumer_gets_a_clear_error",
    ),
    Mutation(
        "a run that is dropped goes on",
        "_sync",
        "run.job.stop(End.DROPPED)\n",
        "pass\n",
        "contract/test_closing.py::test_g13_losing_the_last_reference_waits_for_nothing_and_starts_nothing",
    ),
    Mutation(
        "an exception of a signal handler is taken for one of the source",
        "_base",
        "if _was_given(tb.tb_next.tb_frame, tb.tb_frame):",
        "if tb is None:",
        "base/test_signals.py::test_g16_what_a_handler_raises_within_a_pull_is_raised_at_once",
    ),
    Mutation(
        "a next skips what another consumer left",
        "_core",
        "if window.held:",
        "if window is None:",
        "contract/test_several_consumers.py::test_g23_a_next_that_is_held_up_before_it_begins_skips_nothing",
    ),
    # ---- what workers share ----------------------------------------------------------------------
    Mutation(
        "the end of a call wakes no consumer",
        "_core",
        "        self.rouse(chunk.index, chunk.size)\n\n    def crash",
        "\n    def crash",
        "contract/test_order.py::test_g01_results_come_in_input_order_though_calls_end_in_reverse",
    ),
    Mutation(
        "all calls share one context",
        "_core",
        "append(copy().run(fn, item))",
        "append(self.context.run(fn, item))",
        "contract/test_context_variables.py::test_g21_what_one_item_sets_no_other_item_sees",
    ),
    Mutation(
        "a failure that ends the run stops no later chunk",
        "_core",
        "if slot.chunk is not None and slot.chunk.index + slot.chunk.size > index:",
        "if slot.chunk is None:",
        "core/test_handing_over.py::test_g09_a_failure_stops_what_later_chunks_have_not_started",
    ),
    Mutation(
        "a chunk that is claimed while the run ends is run",
        "_core",
        "if self.stopped or chunk.index > self.window.last_index:",
        "if chunk.index > self.window.last_index:",
        "core/test_handing_over.py::test_g13_a_chunk_that_is_claimed_while_the_run_ends_is_not_run",
    ),
    Mutation(
        "a call begins after the deadline",
        "_core",
        "if not self.may_start() or (window.passing is not None",
        "if self.end is not None or (window.passing is not None",
        "aio/test_amap_time_limits.py::test_g18_nothing_is_started_after_the_deadline_while_the_consumer_is_away",
    ),
    Mutation(
        "the rate limit lets every call start",
        "_core",
        "if (left := throttle.ask(self.clock, start=True)) is not None:",
        "if (left := throttle.ask(self.clock, start=True)) is not None and left < 0:",
        "contract/test_limits.py::test_g34_calls_start_at_the_rate_and_results_stay_in_order",
    ),
    Mutation(
        "closing a run lets its chunks run to their end",
        "_core",
        "        for slot in self.pool.slots():\n            drain(slot.chunk)\n",
        "",
        "core/test_handing_over.py::test_g13_closing_stops_what_chunks_have_not_started",
    ),
    Mutation(
        "StopIteration of fn ends the loop in silence",
        "_model",
        "if isinstance(error, (StopIteration, StopAsyncIteration)):\n        wrapped",
        "if isinstance(error, StopAsyncIteration):\n        wrapped",
        "contract/test_errors.py::test_g11_stop_iteration_of_fn_arrives_as_runtime_error",
    ),
    # ---- the supervisor --------------------------------------------------------------------------
    Mutation(
        "a chunk is never taken back",
        "_core",
        "elif slot.sliced and not chunk.expired and not job.stopped:",
        "elif slot.sliced and chunk.expired:",
        BOUNDS + "test_g05_a_slow_item_deep_in_a_run_of_tiny_ones_holds_up_no_work",
    ),
    Mutation(
        "a call is never given up",
        "_core",
        "            if call.settle():\n                slot.give_up()\n",
        "            if call is None:\n                slot.give_up()\n",
        "contract/test_timeout.py::test_g17_an_item_that_runs_longer_fails_with_timeout_error_in_its_turn",
    ),
    Mutation(
        "a pause before a retry is left out",
        "_core",
        "while self._pauses and self._pauses[0][0] <= now:",
        "while self._pauses:",
        "contract/test_retry.py::test_retry_waits_as_long_as_it_says",
    ),
    Mutation(
        "a worker waits for itself when it closes its run",
        "_core",
        'if frame.f_code in _steps and frame.f_locals["self"].bars(job):',
        "if frame is None:",
        "contract/test_worst_moments.py::test_g16_close_in_a_worker_outside_its_calls_does_not_wait_for_itself",
    ),
    Mutation(
        "exit waits for a call that was given up",
        "_pools",
        "        slot.thread.left.open()",
        "        pass",
        "contract/test_interpreter_exit.py::test_g15_a_call_that_outlives_its_timeout_while_exit_waits_for_it_does_not_block_exit",
    ),
    # ---- threads ---------------------------------------------------------------------------------
    Mutation(
        "all threads are started at once",
        "_pools",
        "        while self._permits and self._wanting():\n            if self._idle:",
        "        while self._permits:\n            if self._idle:",
        "pools/test_threads.py::test_g19_three_items_never_start_eight_threads",
    ),
    Mutation(
        "an item that comes just before a worker sleeps is overlooked",
        "_pools",
        "chunk = self._claim(slot)  # an item that came before we said that we are idle",
        "chunk = None",
        "core/test_handing_over.py::test_g07_an_item_that_comes_just_before_a_worker_sleeps_is_seen",
    ),
    Mutation(
        "the place of a call that was given up stays empty",
        "_pools",
        "        self._permits.append(None)\n        self.notify(min",
        "        self.notify(min",
        "contract/test_timeout.py::test_g17_the_slot_of_an_item_given_up_is_taken_by_a_new_thread",
    ),
    # ---- executors and serial --------------------------------------------------------------------
    Mutation(
        "one call too many is submitted",
        "_pools",
        "        self.executor: Any = executor  # None when the run no longer needs it\n",
        "        self.executor: Any = executor\n        job.concurrency += 1\n",
        "pools/test_executors.py::test_g19_calls_that_the_executor_has_not_begun_are_in_flight_too",
    ),
    Mutation(
        "an executor that is passed in is shut down",
        "_pools",
        "            if self._build is not None and self.executor is not None:\n                self.executor.shutdown(",
        "            if self.executor is not None:\n                self.executor.shutdown(",
        "pools/test_executors.py::test_g19_an_executor_passed_in_is_never_shut_down",
    ),
    Mutation(
        "a nested run waits for its head in a queue that it blocks itself",
        "_pools",
        "if submission is None or not submission.recall():",
        "if submission is None or submission.left:",
        "contract/test_nested_runs.py::test_g22_runs_nest_on_one_executor_whose_workers_are_all_busy",
    ),
    Mutation(
        "a policy is asked about a broken executor",
        "_pools",
        "self.broken, kind = True, Kind.FATAL",
        "self.broken, kind = True, Kind.FAILED",
        "pools/test_process_pool_executors.py::test_g25_a_broken_executor_ends_the_run_past_every_policy",
    ),
    # ---- worker processes ------------------------------------------------------------------------
    Mutation(
        "the wrong item is blamed for the death of a worker",
        "_processes",
        "            numbers[0] = position\n",
        "",
        DEATHS + "test_g24_a_death_costs_the_item_it_hit",
    ),
    Mutation(
        "items that were finished and not reported are lost with their worker",
        "_processes",
        "for item in items[following:begun]:",
        "for item in items[begun:begun]:",
        DEATHS + "test_g24_work_that_was_finished_before_in_a_batch_is_not_lost",
    ),
    Mutation(
        "workers that die before their first item are replaced for ever",
        "_processes",
        "_EARLY_DEATHS: Final = 3",
        "_EARLY_DEATHS: Final = 10**9",
        DEATHS + "test_g25_an_initializer_that_ends_its_process_ends_the_run",
    ),
    Mutation(
        "a worker that runs on when its run is closed is never killed",
        "_processes",
        "GRACE_S: Final = 0.5",
        "GRACE_S: Final = 3600.0",
        "processes/test_closing_of_processes.py::test_g13_close_ends_running_processes_after_their_grace",
    ),
    Mutation(
        "workers see Ctrl-C",
        "_processes",
        "signal.signal(signal.SIGINT, lambda *_: None)",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        "processes/test_worker_settings.py::test_g14_workers_do_not_see_an_interrupt",
    ),
    Mutation(
        "items that a worker had not begun when it died are lost",
        "_processes",
        "        self.give_back(following)\n",
        "",
        DEATHS + "test_g24_a_death_costs_the_item_it_hit",
    ),
    # ---- the transport ---------------------------------------------------------------------------
    Mutation(
        "a large bytearray arrives as bytes",
        "_transport",
        "return bytearray(view) if writable else bytes(view)",
        "return bytes(view)",
        "transport/test_large_payloads.py::test_large_buffers_arrive_as_they_were_sent",
    ),
    Mutation(
        "large payloads overwrite each other",
        "_transport",
        "self._end = -(-end // 64) * 64",
        "self._end = begin",
        "transport/test_large_payloads.py::test_large_buffers_arrive_as_they_were_sent",
    ),
    Mutation(
        "a full shared memory is an error of the item",
        "_transport",
        "except (OSError, MemoryError):  # the file system is full",
        "except MemoryError:  # the file system is full",
        "transport/test_large_payloads.py::test_g28_a_full_shared_memory_is_got_round",
    ),
    Mutation(
        "an error that cannot be pickled arrives without its text",
        "_transport",
        "or [RuntimeError(text)]",
        "or [RuntimeError()]",
        "processes/test_pickling.py::test_g25_an_error_that_cannot_travel_names_its_type_and_text",
    ),
    # ---- the policies ----------------------------------------------------------------------------
    Mutation(
        "retry makes one attempt too many",
        "_model",
        "failure.attempt < self.attempts",
        "failure.attempt <= self.attempts",
        "contract/test_retry.py::test_retry_policy_gives_up_after_so_many_attempts",
    ),
    Mutation(
        "the first pause of retry is already multiplied",
        "_model",
        "self.backoff * self.factor ** (attempt - 1)",
        "self.backoff * self.factor**attempt",
        "contract/test_retry.py::test_retry_policy_begins_with_the_pause_that_is_given",
    ),
    Mutation(
        "the last attempt of a retry that then raises ends nothing before its turn",
        "_model",
        "return decision_of(self.then)(failure)",
        'return decision_of("return")(failure)',
        "core/test_handing_over.py::test_g09_a_retry_that_gives_up_and_raises_lets_nothing_later_start",
    ),
    Mutation(
        "the note names the next item",
        "_model",
        'text = f"item {index}',
        'text = f"item {index + 1}',
        "contract/test_errors.py::test_g08_an_error_gains_a_note_with_the_index_and_the_item",
    ),
    # ---- asyncio ---------------------------------------------------------------------------------
    Mutation(
        "one task too many runs",
        "_aio",
        "self._permits = job.concurrency",
        "self._permits = job.concurrency + 1",
        "aio/test_amap_order.py::test_g5_concurrency_bounds_what_runs",
    ),
    Mutation(
        "calls are cancelled twice",
        "_aio",
        "        if self._cancelled:\n            return\n",
        "",
        "aio/test_amap_ending.py::test_g30_calls_and_an_async_source_are_cancelled_once",
    ),
    Mutation(
        "a call that takes too long is not cancelled",
        "_aio",
        "            slot.late = True\n            slot.task.cancel()\n",
        "            slot.late = True\n",
        "aio/test_amap_time_limits.py::test_g17_a_call_that_takes_too_long_is_cancelled_and_fails_in_its_turn",
    ),
    Mutation(
        "a cancelled consumer does not wait for its calls",
        "_aio",
        "    def cancel(self, msg: Any = None) -> bool:\n        return False",
        "    def cancel(self, msg: Any = None) -> bool:\n        return super().cancel(msg)",
        "aio/test_amap_ending.py::test_g30_further_cancellations_leave_every_cleanup_to_its_end_and_are_raised_then",
    ),
    Mutation(
        "an async source is pulled past the window",
        "_aio",
        "            while window.room() < 1:\n                await",
        "            while window.room() < 0:\n                await",
        "aio/test_amap_order.py::test_g03_an_async_source_is_pulled_to_the_bound_and_no_further",
    ),
    Mutation(
        "ordered_gather raises the first failure in turn, not in time",
        "_core",
        "        if self.fail_fast:\n            if not self.stopped",
        "        if self.fail_fast and False:\n            if not self.stopped",
        "aio/test_gather.py::test_g33_the_first_failure_in_time_is_raised_and_what_runs_is_cancelled",
    ),
]
