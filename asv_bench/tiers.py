"""Measure TieredCache against its bars and what lies below it: `ci/bench.sh tiers`, a table.

python asv_bench/tiers.py [--quick] [--json] [--page FILE] [ROW ...]

With names of rows (exact, or a part of a name) only those rows are measured. Servers are started
on free ports and stopped at the end; files lie where temporary files do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import page
import tier_failures as failures
import tier_reads as reads
import tier_writes as writes
from report import HEADINGS, Line, busy, chosen, machine, markdown, note
from timing import FULL, QUICK, Effort

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document, no table")
    parser.add_argument("--page", type=Path, help="a page whose table is written anew")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    start = time.monotonic()
    lines: list[Line] = []
    for row in chosen(options.rows, list(ROWS)):
        note(f"{row} ({time.monotonic() - start:.0f} s)")
        lines += ROWS[row](effort)
    where = f"{machine()}; {busy()}; {time.monotonic() - start:.0f} s"
    if options.page:
        parts = {"machine": f"Measured on {where}.", "bars": page.bars_table(lines)}
        page.write(options.page, parts)
    if options.json:
        rows = [asdict(line) | {"verdict": line.verdict} for line in lines]
        print(json.dumps({"machine": where, "bars": rows}, indent=1))
        return
    print(f"{where}\n")
    print(markdown(HEADINGS, [line.cells() for line in lines]))


if __name__ == "__main__":
    main()
