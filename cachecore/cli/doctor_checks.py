"""The checks of `cachecore doctor`; each yields what it found, and what to do about it."""

from __future__ import annotations

import importlib
import platform
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cachecore.cli.client import Client
from cachecore.cli.failures import Failure, NotRunning
from cachecore.cli.target import of_settings
from cachecore.server.machine import OTHER_FILES, cgroup_limit, usable_memory
from cachecore.server.settings import Settings
from cachecore.units import size

OK, WARNED, FAILED = "ok", "warn", "FAIL"
OLDEST, NEWEST = (3, 11), (3, 14)  # versions of Python that are promised
MOST_SHARE = 0.8  # of the memory that values may take, for there is more than values
NEEDED = ("_core", "_resp")  # modules that the server cannot do without


class Finding(NamedTuple):
    """What a check found."""

    level: str
    name: str
    what: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings, source: Path | None) -> Iterator[Finding]:
    """Do all checks."""
    from cachecore.cli.doctor_files import check_files
    from cachecore.cli.doctor_upstream import check_upstream

    yield Finding(OK, "settings", f"from {source}" if source else "defaults, no file")
    checks: tuple[Check, ...] = (
        check_python, check_modules, check_memory, check_descriptors, check_backlog, check_pages,
        check_clock, check_address, check_files, check_upstream,
    )  # fmt: skip
    for check in checks:
        yield from check(settings)


def check_python(_settings: Settings) -> Iterator[Finding]:
    """Whether this Python and this system are those that are promised."""
    what = f"{platform.python_implementation()} {platform.python_version()}"
    what += f" on {platform.system()} {platform.machine()}"
    fits = OLDEST <= sys.version_info[:2] <= NEWEST and sys.implementation.name == "cpython"
    if fits and sys.platform == "linux":
        yield Finding(OK, "python", what)
    else:
        yield Finding(WARNED, "python", what, "tested are CPython 3.11 to 3.14 on Linux")


def check_modules(_settings: Settings) -> Iterator[Finding]:
    """Whether the compiled modules can be imported, and the event loop is the fast one."""
    folder = Path(__file__).parents[1]
    found = {path.name.partition(".")[0] for path in folder.glob(f"_*{EXTENSION_SUFFIXES[0]}")}
    broken = []
    for name in sorted(found | {*NEEDED}):
        try:
            importlib.import_module(f"cachecore.{name}")
        except ImportError as error:
            broken.append(f"{name}: {error}")
    if broken:
        advice = "pip install --force-reinstall cachecore-ml; in a checkout, build it again"
        yield Finding(FAILED, "modules", "; ".join(broken), advice)
    else:
        yield Finding(OK, "modules", f"{len(found)} compiled modules")
    if find_spec("uvloop"):
        yield Finding(OK, "event loop", "uvloop")
    else:
        advice = 'pip install "cachecore-ml[server]" for the faster one'
        yield Finding(WARNED, "event loop", "asyncio's own", advice)


def check_memory(settings: Settings) -> Iterator[Finding]:
    """Whether there is as much memory as the cache may take."""
    usable, limit = usable_memory(), settings.memory_limit
    where = "the cgroup's" if cgroup_limit() == usable else "this machine's"
    what = f"memory_limit {size(limit)} of {where} {size(usable)}"
    if limit > usable:
        advice = f"the system would kill it: set memory_limit to at most {size(usable * 0.8)}"
        yield Finding(FAILED, "memory", what, advice)
    elif limit > MOST_SHARE * usable:
        advice = "leave a fifth for the process itself, and for clients' buffers"
        yield Finding(WARNED, "memory", what, advice)
    else:
        free = _available()
        if free is not None and free < limit:
            advice = f"{size(free)} are free now: what else runs here?"
            yield Finding(WARNED, "memory", what, advice)
        else:
            yield Finding(OK, "memory", what)
    if _number("/proc/sys/vm/overcommit_memory") == 2:
        advice = "sysctl vm.overcommit_memory=0, or 1: large caches reserve more than they touch"
        yield Finding(WARNED, "overcommit", "the system reserves no more than it has", advice)


def check_descriptors(settings: Settings) -> Iterator[Finding]:
    """Whether as many clients can connect as are allowed to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server goes up to it
    needed = settings.maxclients + OTHER_FILES
    what = f"{settings.maxclients:,} clients, {hard:,} open files"
    if hard != resource.RLIM_INFINITY and hard < needed:
        advice = f"ulimit -n {needed}, LimitNOFILE={needed} in a systemd unit, or lower maxclients"
        yield Finding(FAILED, "open files", what, advice)
    else:
        yield Finding(OK, "open files", what)


def check_backlog(settings: Settings) -> Iterator[Finding]:
    """Whether the kernel lets as many connections wait as are meant to."""
    most = _number("/proc/sys/net/core/somaxconn")
    if most is not None and most < settings.backlog:
        advice = f"sysctl net.core.somaxconn={settings.backlog}"
        yield Finding(WARNED, "backlog", f"{settings.backlog}, but somaxconn is {most}", advice)
    else:
        yield Finding(OK, "backlog", f"{settings.backlog}, somaxconn {most}")


def check_pages(_settings: Settings) -> Iterator[Finding]:
    """Whether the kernel gives huge pages to those who ask."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    text = path.read_text().strip() if path.exists() else "[never]"
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "never":
        advice = f"echo madvise > {path}: look-ups among millions of keys take a tenth less time"
        yield Finding(WARNED, "huge pages", "never", advice)
    else:
        yield Finding(OK, "huge pages", mode)


def check_clock(_settings: Settings) -> Iterator[Finding]:
    """Whether reading the clock is cheap, and lifetimes are as exact as promised."""
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    source = path.read_text().strip() if path.exists() else "unknown"
    tick = time.clock_getres(6) if sys.platform == "linux" else 0.0  # CLOCK_MONOTONIC_COARSE
    what = f"{source}, ticks of {tick * 1000:.0f} ms"
    if source in ("hpet", "acpi_pm", "jiffies"):
        advice = f"each reading takes a microsecond: echo tsc > {path}, if it is available"
        yield Finding(WARNED, "clock", what, advice)
    elif tick > 0.01:
        yield Finding(WARNED, "clock", what, "lifetimes are no more exact than a tick")
    else:
        yield Finding(OK, "clock", what)


def check_address(settings: Settings) -> Iterator[Finding]:
    """Whether the server runs, or could listen where it is told to."""
    target = of_settings(settings)
    try:
        with Client(target, timeout=2) as client:
            reply = client.call(b"PING")
        yield Finding(OK, "address", f"a server answers at {target}: {reply}")
        return
    except NotRunning:
        pass
    except Failure as error:
        advice = "another program listens there: stop it, or choose another port"
        yield Finding(FAILED, "address", str(error.message), advice)
        return
    for address in settings.bind:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, settings.port))
            except OSError as error:
                what = f"{address}:{settings.port}: {error.strerror}"
                advice = "choose an address of this machine, and a port that is free"
                yield Finding(FAILED, "address", what, advice)
                return
    yield Finding(OK, "address", f"{target} is free, no server runs")


def _available() -> int | None:
    """Bytes of memory that could be had without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = next(line for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return int(found.split()[1]) * 1024


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
