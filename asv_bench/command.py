"""The command line of a table of bars: chosen rows are measured, printed, and put into a page."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import page
from report import HEADINGS, Line, busy, chosen, machine, markdown, note
from timing import FULL, QUICK, Effort


def command(description: str, rows: Mapping[str, Callable[[Effort], list[Line]]]) -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(rows)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document, no table")
    parser.add_argument("--page", type=Path, help="a page whose table is written anew")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    start = time.monotonic()
    lines: list[Line] = []
    for row in chosen(options.rows, list(rows)):
        note(f"{row} ({time.monotonic() - start:.0f} s)")
        lines += rows[row](effort)
    where = f"{machine()}; {busy()}; {time.monotonic() - start:.0f} s"
    if options.page:
        parts = {"machine": f"Measured on {where}.", "bars": page.bars_table(lines)}
        page.write(options.page, parts)
    if options.json:
        bars = [asdict(line) | {"verdict": line.verdict} for line in lines]
        print(json.dumps({"machine": where, "bars": bars}, indent=1))
        return
    print(f"{where}\n")
    print(markdown(HEADINGS, [line.cells() for line in lines]))
