"""What this machine, or the container that we are in, has of memory and of descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
OTHER_FILES = 64  # open beside those of clients
UNLIMITED = 1 << 60  # cgroups of version 1 write a number as large as this for "no limit"


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or a cgroup's if that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *_limits(CGROUPS, OWN)])


def cgroup_limit(cgroups: Path = CGROUPS, own: Path = OWN) -> int | None:
    """The least limit of the cgroups that we are in, in bytes; None if there is none."""
    return min(_limits(cgroups, own), default=None)


def _limits(cgroups: Path, own: Path) -> Iterator[int]:
    """The limits of our cgroup and of those around it, of version 2 and of version 1.

    In a container the path may be that of the host, which is not to be seen here; then the root of
    what is mounted is our own cgroup.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        for around in (folder, *folder.parents):
            try:
                text = (around / name).read_text().strip()
            except OSError:
                text = "max"
            if text.isdecimal() and int(text) < UNLIMITED:
                yield int(text)
            if around == root:
                break


def allow_descriptors(needed: int) -> int:
    """Raise the limit of open files to what is needed, as far as it may be; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return needed if soft == resource.RLIM_INFINITY else soft
