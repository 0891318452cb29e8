"""What a fork server that `start` has started imports last: what workers need, once for all of them.

SIGINT is blocked until here, since one that comes while the server imports would end it. It is forgotten, as the server
ignores it from its next step on. The processes that it forks have the signal mask and the handler that it begins with.
"""

import signal

from . import worker

__all__ = ["worker"]

if signal.SIGINT in signal.sigpending():
    signal.sigwait({signal.SIGINT})
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
