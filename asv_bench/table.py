"""Print the table of bars, and cachecore against every peer as a table and a PNG.

python asv_bench/table.py [--quick] [--json] [--png FILE] [ROW ...]

With names of rows (exact, or a part of a name) only those rows are measured, and the peers only if
`peers` is among the names.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

import compare
from bars import ROWS
from report import HEADINGS, Line, markdown
from timing import FULL, QUICK


def _note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _machine() -> str:
    """Say what the numbers were measured on."""
    described = Path("/proc/cpuinfo").read_text().partition("model name")[2]
    cpu = described.partition("\n")[0].lstrip("\t: ") or platform.machine()
    return f"{cpu}, CPython {platform.python_version()}, NumPy {np.__version__}"


def _busy() -> str:
    """Say how busy the machine is: the measurement itself is a load of about 1."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def _chosen(names: list[str]) -> list[str]:
    """Return the rows that are meant; an exact name wins over parts of names."""
    every = [*ROWS, "peers"]
    if not names:
        return every
    chosen = [
        row
        for name in names
        for row in ([name] if name in every else [r for r in every if name in r])
    ]
    if not chosen:
        sys.exit(f"no row is named {' or '.join(names)}; rows: {', '.join(every)}")
    return list(dict.fromkeys(chosen))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Measure cachecore against its bars and its peers."
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(ROWS)}, peers"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, noisier: for a first look"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables"
    )
    parser.add_argument(
        "--png",
        type=Path,
        default=Path("build/peers.png"),
        help="where the chart goes (%(default)s)",
    )
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    chosen = _chosen(options.rows)
    start = time.monotonic()

    lines: list[Line] = []
    for row in chosen:
        if row in ROWS:
            _note(row)
            lines += ROWS[row](effort)
    comparisons = compare.compare(effort, _note) if "peers" in chosen else []
    if comparisons:
        import chart

        chart.draw(comparisons, _machine(), options.png)

    if options.json:
        document = {
            "machine": f"{_machine()}; {_busy()}",
            "bars": [asdict(line) | {"verdict": line.verdict} for line in lines],
            "peers": {c.peer.label: {"values": c.values, "ratios": c.ratios} for c in comparisons},
        }
        print(json.dumps(document, indent=1))
        return
    print(f"{_machine()}; {_busy()}; {time.monotonic() - start:.0f} s\n")
    if lines:
        print(markdown(HEADINGS, [line.cells() for line in lines]), "\n")
    if comparisons:
        print(compare.table(comparisons), f"\n\nchart: {options.png}")


if __name__ == "__main__":
    main()
