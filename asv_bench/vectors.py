"""Measure VectorCache against its bars and its peers: `ci/bench.sh vectors`, tables and a chart.

python asv_bench/vectors.py [--quick] [--json] [--chart FILE] [--page FILE] [ROW ...]

With names of rows (exact, or a part of a name) only those rows are measured; the grid only if
`grid` is among the names, the chart if that and `peers` are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import page
import vector_bars as bars
import vector_peers as peers
import vector_scaling as scaling
from report import HEADINGS, Line, busy, chosen, machine, markdown, note
from timing import FULL, QUICK, Effort

# Neighbours use the same population, which takes long to make.
ROWS: dict[str, Callable[[Effort], list[Line]]] = {
    "find": bars.find,
    "gather": bars.gather,
    "threads": bars.threads,
    "python threads": scaling.python_threads,
    "torch": peers.torch,
    "shared": bars.shared,
    "processes": scaling.processes,
    "put": bars.put,
    "insertion": scaling.insertion,
    "overhead": bars.overhead,
    "opening": bars.opening,
    "memory": scaling.memory,
    "peers": peers.peers,
}


def main() -> None:
    """Measure and print."""
    every = [*ROWS, "grid"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(every)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller tables")
    parser.add_argument("--json", action="store_true", help="print one JSON document, no tables")
    parser.add_argument(
        "--chart",
        type=Path,
        default=Path("build/vectors.svg"),
        help="where the chart goes, an SVG or PNG (%(default)s)",
    )
    parser.add_argument("--page", type=Path, help="a page whose tables are written anew")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    rows = chosen(options.rows, every)
    start = time.monotonic()
    lines: list[Line] = []
    for row in rows:
        if row in ROWS:
            note(f"{row} ({time.monotonic() - start:.0f} s)")
            lines += ROWS[row](effort)
    cells = scaling.grid(effort) if "grid" in rows else []
    if cells and "peers" in rows:
        import vector_chart

        vector_chart.draw(cells, peers.against_peers(effort)[0], machine(), options.chart)
    where = f"{machine()}; {busy()}; {time.monotonic() - start:.0f} s"
    if options.page:
        grid = f"{scaling.grid_scope()}.\n\n{scaling.grid_table(cells)}"
        parts = {"machine": f"Measured on {where}.", "bars": page.bars_table(lines)}
        page.write(options.page, parts | ({"grid": grid} if cells else {}))
    if options.json:
        document = {
            "machine": where,
            "bars": [asdict(line) | {"verdict": line.verdict} for line in lines],
            "grid": [asdict(cell) for cell in cells],
        }
        print(json.dumps(document, indent=1))
        return
    print(f"{where}\n")
    if lines:
        print(markdown(HEADINGS, [line.cells() for line in lines]), "\n")
    if cells:
        print(f"{scaling.grid_scope()}\n\n{scaling.grid_table(cells)}")
    if cells and "peers" in rows:
        print(f"\nchart: {options.chart}")


if __name__ == "__main__":
    main()
