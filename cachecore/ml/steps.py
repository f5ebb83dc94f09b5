"""Generators of steps: one body for threads and tasks.

Each step is (function, its asynchronous twin, arguments); the generator is sent what that returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

Step = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]
Steps = Generator[Step, Any, Any]


def run(steps: Steps) -> Any:
    """Take the steps of a generator one after another; what it returns."""
    answer = None
    while True:
        try:
            call, _, arguments = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = call(*arguments)


async def arun(steps: Steps) -> Any:
    """The same in a task."""
    answer = None
    while True:
        try:
            _, call, arguments = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = await call(*arguments)


def in_thread(call: Callable[..., Any]) -> Callable[..., Any]:
    """The asynchronous twin of a function that may take long."""

    def calling(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except StopIteration as error:  # no future takes it: who awaits that would wait forever
            raise RuntimeError("a function raised StopIteration") from error

    return lambda *arguments: asyncio.to_thread(calling, *arguments)
