"""The report of `cachecore plan` as one HTML page that needs nothing else, in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from cachecore import __version__
from cachecore.cli.plan_report import MONTH, OURS, facts, money, sizes, slice_length, terms
from cachecore.cli.svg import Axis, Series, chart, legend
from cachecore.plan.analysis import Outcome, Plan
from cachecore.units import amount, duration, size, span

CLASSES = {
    "LRU": "lru",
    "LFU": "lfu",
    "S3-FIFO": "s3",
    "W-TinyLFU": "tiny",
    "optimum": "best",
    OURS: "ours",
}
STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6777;
  --line: #e2e6eb; --ours: #1a5fd0; --lru: #c8501e; --lfu: #a07c00; --s3: #00806a; --tiny: #a2449c;
  --best: #6d7785; --pale: #a9c6f2; --good: #17753d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --card: #1a2028; --ink: #e6eaf0;
  --soft: #9aa6b5; --line: #2c3540; --ours: #6ea8ff; --lru: #ff9466; --lfu: #dcb948; --s3: #4fcdb3;
  --tiny: #e08fdb; --best: #9aa6b5; --pale: #34506f; --good: #6fd394; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 20px 48px; max-width: 900px; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
svg + h2 { margin-top: 18px; }
p { margin: 4px 0 10px; }
.soft, figcaption, td.note { color: var(--soft); }
section, .verdict { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin-top: 16px; }
.verdict { border-left: 5px solid var(--good); }
.verdict.no { border-left-color: var(--bad); }
.verdict b { color: var(--good); font-size: 18px; }
.verdict.no b { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 16px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; }
.tiles strong { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th { color: var(--soft); font-weight: 500; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.note { text-align: left; white-space: normal; width: 55%; }
td.us, tr.us td { font-weight: 600; color: var(--ours); }
section { overflow-x: auto; }
svg { width: 100%; min-width: 560px; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--line); } .axis, .tick { stroke: var(--soft); }
.mark { stroke: var(--ours); stroke-dasharray: 3 4; }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.line.ours { stroke-width: 3.2; } .line.best { stroke-dasharray: 6 5; }
.line.none { stroke-dasharray: 1 5; stroke-linecap: round; stroke-width: 2.4; }
.dot, .bar { fill: var(--c); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0;
  margin: 6px 0; font-size: 13px; }
.legend li::before { content: ""; display: inline-block; width: 16px; height: 4px;
  margin: 0 7px 3px 0; border-radius: 2px; background: var(--c); vertical-align: middle; }
.ours { --c: var(--ours); } .lru { --c: var(--lru); } .lfu { --c: var(--lfu); }
.s3 { --c: var(--s3); } .tiny { --c: var(--tiny); } .best { --c: var(--best); }
.none { --c: var(--ink); } .all { --c: var(--pale); }
"""


def page(plan: Plan, name: str) -> str:
    """The whole page."""
    good = plan.verdict.worth_it
    heading = "Worth it." if good else f"Not worth it: {plan.verdict.why}."
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>Cache plan: {escape(name)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">How large a cache, and is it worth it? cachecore {__version__}</p>',
        f'<div class="verdict{"" if good else " no"}"><b>{escape(heading)}</b>',
        f"<p>{escape(plan.verdict.reason)}</p></div>",
        _tiles(plan),
        _misses(plan),
        _sizes(plan),
        _money(plan),
        _latency(plan),
        _bytes(plan),
        _log(plan),
        _popularity(plan),
        _working_set(plan),
        _basis(plan),
        "</body></html>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _tiles(plan: Plan) -> str:
    best = plan.recommended
    tiles = [
        (f"{best.entries:,}", "entries"),
        (size(best.memory_bytes), "memory"),
        (f"{best.hit_ratio:.1%}", "of the requests hit"),
        (duration(best.latency * 1e9), "mean latency"),
    ]
    if best.net_a_day is not None:
        tiles.append((amount(best.net_a_day), "net saving a day"))
    cells = (f"<div><strong>{escape(a)}</strong>{escape(b)}</div>" for a, b in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _section(title: str, note: str, *parts: str) -> str:
    about = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{about}{''.join(parts)}</section>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str]) -> str:
    """A table; `classes` are those of its columns' cells."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"
            for text, kind in zip(row, classes, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _entries(plan: Plan) -> Axis:
    ends = [outcome.entries or 1 for outcome in plan.curve]
    return Axis("entries", ends[0], max(ends[-1], ends[0] + 1), _count, log=True)


def _mark(plan: Plan) -> tuple[str, float]:
    return ("recommended", float(plan.recommended.entries or 1))


def _misses(plan: Plan) -> str:
    series = []
    for policy, ratios in plan.policies.items():
        known = zip(plan.curve, ratios, strict=True)
        points = [(float(o.entries or 1), 1 - ratio) for o, ratio in known if ratio is not None]
        series.append(Series(policy, CLASSES[policy], points))
    ours = [(float(o.entries or 1), 1 - o.hit_ratio) for o in plan.curve]
    series.append(Series(f"cachecore {OURS}", "ours", ours))
    y = Axis("", 0, 1, _percent)
    title = "Share of the requests that miss"
    headings = ["entries", "memory", OURS, *plan.policies, "mean latency"]
    rows = [
        [
            f"{o.entries:,}",
            size(o.memory_bytes),
            f"{o.hit_ratio:.1%}",
            *("-" if r[at] is None else f"{r[at]:.1%}" for r in plan.policies.values()),
            duration(o.latency * 1e9),
        ]
        for at, o in enumerate(plan.curve)
    ]
    classes = ["", "", "us", *("" for _ in plan.policies), ""]
    note = "By size of the cache; lower is better. The optimum knows the future."
    return _section(
        title,
        note if plan.policies else note.partition(";")[0] + ".",
        legend(series),
        chart(title, _entries(plan), y, series, _mark(plan)),
        "<h2>Hit ratios</h2>",
        _table(headings, rows, classes),
    )


def _sizes(plan: Plan) -> str:
    def row(label: str, outcome: Outcome | None) -> list[str]:
        if outcome is None:
            return [label, "-", "-", f"at most {plan.attainable:.1%}", "not reachable"]
        return [
            label,
            "-" if outcome.entries is None else f"{outcome.entries:,}",
            size(outcome.memory_bytes),
            f"{outcome.hit_ratio:.1%}",
            duration(outcome.latency * 1e9),
        ]

    headings = ["", "entries", "memory", "hit ratio", "mean latency"]
    rows = [row(*pair) for pair in sizes(plan)]
    note = f"Recommended: {plan.chosen}."
    return _section("Sizes", note, _table(headings, rows, [""] * 5))


def _money(plan: Plan) -> str:
    rows = [[label, amount(day), amount(month)] for label, day, month in money(plan)]
    if plan.recommended.gpu_hours_a_day is None:
        return ""
    title = "What the recommended cache saves"
    return _section(title, "", _table(["", "a day", f"in {MONTH} days"], rows, [""] * 3))


def _latency(plan: Plan) -> str:
    def points(ratios: Iterable[float | None]) -> list[tuple[float, float]]:
        return [
            (float(outcome.entries or 1), plan.terms.latency(ratio) * 1e9)
            for outcome, ratio in zip(plan.curve, ratios, strict=True)
            if ratio is not None
        ]

    ends = (plan.curve[0], plan.curve[-1])
    without = plan.terms.miss_latency * 1e9
    series = [
        Series("no cache", "none", [(float(o.entries or 1), without) for o in ends], dots=False)
    ]
    series += [
        Series(policy, CLASSES[policy], points(plan.policies[policy]))
        for policy in ("LRU", "optimum")
        if policy in plan.policies
    ]
    ours = points([outcome.hit_ratio for outcome in plan.curve])
    series.append(Series(f"cachecore {OURS}", "ours", ours))
    title = "Mean latency of a request"
    most = max(value for line in series for _, value in line.points)
    y = Axis("", 0, most, duration)
    return _section(
        title,
        f"A hit takes {duration(plan.terms.hit_latency * 1e9)}, the computation after a miss"
        f" {duration(without)}.",
        legend(series),
        chart(title, _entries(plan), y, series, _mark(plan)),
    )


def _popularity(plan: Plan) -> str:
    points = [(rank, float(count)) for rank, count in plan.traffic.popularity]
    series = [Series("keys", "ours", points)]
    note = "Too few keys are asked for again and again to fit Zipf's law."
    if (law := plan.traffic.zipf) is not None:
        first = points[0][0]
        ranks = [first * (law.keys / first) ** (n / 20) for n in range(21)]
        line = [(rank, law.first * rank**-law.exponent) for rank in ranks]
        label = f"Zipf's law, exponent {law.exponent:.2f}"
        series.append(Series(label, "lru", [(a, b) for a, b in line if b >= 0.7], dots=False))
        note = (
            f"The line is the most likely one for the {law.keys:,} most popular keys, those asked"
            " for at least 8 times."
        )
    top = max(value for line in series for _, value in line.points)
    title = "Requests of a key, by its rank"
    x = Axis("rank", points[0][0], max(points[-1][0], points[0][0] + 1), _count, log=True)
    y = Axis("", 0.7, max(top * 1.2, 2), _count, log=True)
    return _section(title, note, legend(series), chart(title, x, y, series))


def _working_set(plan: Plan) -> str:
    slices = plan.traffic.slices
    series = [
        Series(
            "distinct keys",
            "all",
            [(part.start, float(part.distinct_keys)) for part in slices],
            True,
        ),
        Series(
            "of them never seen before",
            "ours",
            [(part.start, float(part.new_keys)) for part in slices],
            True,
        ),
    ]
    most = max(part.distinct_keys for part in slices)
    if plan.traffic.seconds is None:
        x = Axis("requests", 0, plan.requests, _count)
    else:
        unit = next((n for n in (86_400, 3600, 60) if plan.traffic.seconds >= 2 * n), 10)
        x = Axis("time", 0, plan.traffic.seconds, span, unit=unit)
    title = "Working set over time"
    return _section(
        title,
        f"Distinct keys in each {slice_length(plan)}.",
        legend(series),
        chart(title, x, Axis("", 0, most * 1.05, _count), series),
    )


def _log(plan: Plan) -> str:
    return _section("The log", "", _table(["", "", ""], facts(plan), ["", "", "note"]))


def _basis(plan: Plan) -> str:
    notes = "".join(f"<li>{escape(line)}</li>" for line in (*terms(plan), *plan.notes))
    return _section("What the numbers rest on", "", f"<ul>{notes}</ul>")


def _bytes(plan: Plan) -> str:
    if not plan.byte_curve:
        return ""
    series = [
        Series(
            "requests that miss",
            "ours",
            [(o.memory_bytes, 1 - o.hit_ratio) for o in plan.byte_curve],
        ),
        Series(
            "bytes that miss",
            "lru",
            [(o.memory_bytes, 1 - (o.byte_hit_ratio or 0)) for o in plan.byte_curve],
        ),
    ]
    title = "Misses of a cache bounded by bytes"
    low, high = plan.byte_curve[0].memory_bytes, plan.byte_curve[-1].memory_bytes
    name = "max_bytes, keys and overhead included"
    x = Axis(name, low, max(high, low + 1), size, log=True, unit=2.0)
    y = Axis("", 0, 1, _percent)
    return _section(title, "", legend(series), chart(title, x, y, series))


def _percent(value: float) -> str:
    return f"{value:.0%}" if value * 4 == int(value * 4) else f"{value:.1%}"


def _count(value: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:,.3g}{unit}"
    return f"{value:,.3g}"
