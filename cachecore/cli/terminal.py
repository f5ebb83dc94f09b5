"""What the commands share on the terminal: progress bars, memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import getpagesize
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Bar:
    """A progress bar that draws only when told to, so that no thread disturbs what is timed."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None)
        self._drawn = 0.0

    def update(self, share: float | None) -> None:
        """Show the share done, 0 to 1; None moves the bar without one."""
        self._progress.update(
            self._task, completed=share or 0.0, total=None if share is None else 1
        )
        if share == 1 or monotonic() - self._drawn > 0.1:
            self._progress.refresh()
            self._drawn = monotonic()


class Bars:
    """The bars of one command, one under the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def add(self, label: str) -> Bar:
        return Bar(self._progress, label)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Progress bars on stderr, wiped at the end; nothing at all where stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    ) as progress:
        yield Bars(progress)


def resident_bytes() -> int | None:
    """Memory of this process in RAM, or None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
    except OSError:
        return None
