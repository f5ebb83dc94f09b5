"""Puts what was measured into a page of the documentation, between the marks that it has for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from report import Line, markdown

HEADINGS = ["measure", "against / unit", "measured", "bar", "ours / theirs, remarks"]


def bars_table(lines: Sequence[Line]) -> str:
    """Return the table of bars as a reader of the page wants it."""
    rows = []
    for line in lines:
        measure, against, value, _, bar, verdict, detail = line.cells()
        missed = " (missed)" if verdict.startswith("MISS") else ""
        rows.append([measure, against, value + missed, bar.replace("<=", "≤"), detail])
    return markdown(HEADINGS, rows)


def write(page: Path, parts: dict[str, str]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end -->` for each part."""
    text = page.read_text()
    for name, part in parts.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not mark or not end:
            raise ValueError(f"{page} has no place for {name}")
        text = f"{before}{mark}{part}\n{end}{after}"
    page.write_text(text)
