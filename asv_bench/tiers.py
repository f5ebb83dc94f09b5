"""Measure TieredCache against its bars and what lies below it: `ci/bench.sh tiers`, a table.

python asv_bench/tiers.py [--quick] [--json] [--page FILE] [ROW ...]

With names of rows (exact, or a part of a name) only those rows are measured. Servers are started
on free ports and stopped at the end; files lie where temporary files do.
"""

from __future__ import annotations

from collections.abc import Callable

import tier_failures as failures
import tier_reads as reads
import tier_writes as writes
from command import command
from report import Line
from timing import Effort

ROWS: dict[str, Callable[[Effort], list[Line]]] = {
    "hit": reads.hit,
    "mmap": reads.mmap,
    "redis": reads.redis,
    "stampede": failures.stampede,
    "stopped": failures.stopped,
    "behind": writes.behind,
    "memcached": reads.memcached,
    "loader": reads.loader,
    "async": reads.asynchronous,
    "all hits": reads.hit_many,
    "through": writes.through,
    "climb": writes.climb,
}


if __name__ == "__main__":
    command(__doc__, ROWS)
