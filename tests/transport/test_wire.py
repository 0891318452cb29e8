"""The descriptors of a run's own pipes."""

import os
import sys
from itertools import count

import pytest

from inturn._transport.wire import PipeEvent

pytestmark = pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="nobody tells the open descriptors here")


def made_unless_interrupted_before(step):
    """Make an event, and be interrupted before this step of the interpreter, as by a signal handler that raises."""
    steps = count()

    def trace(frame, event, arg):
        if frame.f_code is PipeEvent.__init__.__code__:
            frame.f_trace_opcodes = True
            if event in ("line", "opcode") and next(steps) == step:  # 3.12 tells of lines only
                raise KeyboardInterrupt
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        PipeEvent()
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(before)
    return True


def test_g16_an_interrupt_while_the_event_is_made_leaves_no_descriptor():
    before = os.listdir("/dev/fd")
    step = 0
    while not made_unless_interrupted_before(step):
        assert os.listdir("/dev/fd") == before, f"interrupted before step {step}"
        step += 1
    assert step > 1
