"""What the tests of memoize share: threads that must end, and waiting for what others do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from time import monotonic
from typing import Any

import pytest

from memo.helpers import DEADLINE, Eventually, Spawn


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Run functions in threads of their own, all of which have ended when the test has."""
    outcomes: list[Future[Any]] = []

    def start(function: Callable[[], Any]) -> Future[Any]:
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(function())
            except BaseException as error:  # reaches the test through result()
                outcome.set_exception(error)

        outcomes.append(outcome)
        Thread(target=run, daemon=True).start()  # daemons: a deadlock must not keep pytest alive
        return outcome

    yield start
    for outcome in outcomes:
        outcome.exception(DEADLINE)


@pytest.fixture
def eventually() -> Eventually:
    """Let other threads run until a condition holds."""

    def wait(condition: Callable[[], object]) -> None:
        end = monotonic() + DEADLINE
        while not condition():
            assert monotonic() < end, "it never came true"
            os.sched_yield()

    return wait
