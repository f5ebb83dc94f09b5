"""Forked children of tests: what one does, and what became of it."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

HANGS = 30.0  # seconds: a child that takes so long does not end


def fork(work: Callable[[], object]) -> int:
    """A child that works, and exits with 0 if the result was true; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    """That of a child, at its end; one that hangs is killed: -9."""
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a child that works."""
    return exit_code(fork(work))
