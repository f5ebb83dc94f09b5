"""Print the table of bars, and cachecore against every peer as a table and a PNG.

python asv_bench/table.py [--quick] [--json] [--png FILE] [ROW ...]

With names of rows (exact, or a part of a name) only those rows are measured, and the peers only if
`peers` is among the names.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import compare
from bars import ROWS
from report import HEADINGS, Line, busy, chosen, machine, markdown, note
from timing import FULL, QUICK


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
    rows = chosen(options.rows, [*ROWS, "peers"])
    start = time.monotonic()

    lines: list[Line] = []
    for row in rows:
        if row in ROWS:
            note(row)
            lines += ROWS[row](effort)
    comparisons = compare.compare(effort, note) if "peers" in rows else []
    if comparisons:
        import chart

        chart.draw(comparisons, machine(), options.png)

    if options.json:
        document = {
            "machine": f"{machine()}; {busy()}",
            "bars": [asdict(line) | {"verdict": line.verdict} for line in lines],
            "peers": {c.peer.label: {"values": c.values, "ratios": c.ratios} for c in comparisons},
        }
        print(json.dumps(document, indent=1))
        return
    print(f"{machine()}; {busy()}; {time.monotonic() - start:.0f} s\n")
    if lines:
        print(markdown(HEADINGS, [line.cells() for line in lines]), "\n")
    if comparisons:
        print(compare.table(comparisons), f"\n\nchart: {options.png}")


if __name__ == "__main__":
    main()
