"""How long work shows how far it is: a bar where somebody looks on, or the caller's function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int], object]


def _silent(done: int, total: int) -> None:
    pass


@contextmanager
def reporting(progress: Report | None, total: int, unit: str) -> Iterator[Report]:
    """A function to call as report(done, total); by default a bar on a terminal, with rich."""
    if progress is not None:
        if not callable(progress):
            raise TypeError(f"progress must be callable, not {type(progress).__name__}")
        yield progress
        return
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        yield _silent
        return
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console

    columns = (BarColumn(), MofNCompleteColumn(), unit, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
