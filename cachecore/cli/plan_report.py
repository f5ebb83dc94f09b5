"""The report of `cachecore plan` on the terminal: a verdict, tables and a chart."""

from __future__ import annotations

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cachecore.cli.charts import Line, log_chart
from cachecore.plan.analysis import Outcome, Plan
from cachecore.plan.traffic import Slice
from cachecore.units import amount, duration, size, span

OURS = "Cache"
STYLES = {
    "LRU": "red",
    "LFU": "yellow",
    "S3-FIFO": "cyan",
    "W-TinyLFU": "magenta",
    "optimum": "white",
    OURS: "bold green",
}
NAMES = {
    "value_bytes": "--value-bytes",
    "hit_latency": "--hit-latency",
    "miss_latency": "--miss-latency",
    "memory_price": "--memory-price",
}
MONTH = 30  # days
BARS = "▁▂▃▄▅▆▇█"


def report(plan: Plan, name: str, console: Console) -> None:
    """Print the whole report."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False)

    good = plan.verdict.worth_it
    heading = "Worth it." if good else f"Not worth it: {plan.verdict.why}."
    say(f"[bold]{escape(name)}[/]")
    say(f"[bold {'green' if good else 'red'}]{heading}[/] {plan.verdict.reason}\n")
    console.print(_traffic(plan))
    say("Share of the requests that miss, by entries", "bold")
    console.print(_chart(plan, min(console.width, 120)), no_wrap=True)
    console.print("", _curve(plan))
    if plan.byte_curve:
        console.print(_byte_curve(plan))
    console.print(_sizes(plan))
    if plan.recommended.gpu_hours_a_day is not None:
        console.print(_money(plan))
    for line in (f"recommended: {plan.chosen}", *terms(plan), *plan.notes):
        say(f"• {escape(line)}", "dim")


def terms(plan: Plan) -> list[str]:
    """What the numbers rest on, and which of it was assumed."""
    known = plan.terms
    said = {
        "value_bytes": f"values of {size(known.value_bytes)}",
        "hit_latency": f"{duration(known.hit_latency * 1e9)} a hit",
        "miss_latency": f"{duration(known.miss_latency * 1e9)} a miss",
    }
    if known.memory_price is not None:
        said["memory_price"] = f"{known.memory_price:g} a GB-hour of memory"
    given = [text for field, text in said.items() if field not in known.assumed]
    if known.gpu_time is not None:
        given.append(f"{duration(known.gpu_time * 1e9)} of a GPU a miss")
    if known.gpu_hour_price is not None:
        given.append(f"{known.gpu_hour_price:g} a GPU-hour")
    if known.rate is not None:
        given.append(f"{known.rate:,.4g} requests a second")
    lines = [f"known: {', '.join(given)}"] if given else []
    if known.assumed:
        texts = (f"{said[field]} ({NAMES[field]})" for field in known.assumed)
        lines.append(f"assumed: {', '.join(texts)}")
    lines.append(
        f"memory: {known.entry_bytes:,.0f} bytes an entry, of which"
        f" {known.entry_bytes - known.value_bytes:,.0f} are key and overhead"
    )
    if any(outcome.error for outcome in plan.curve):
        worst = max(outcome.error for outcome in plan.curve)
        lines.append(f"hit ratios are from samples: standard error up to {worst * 100:.2g} points")
    return lines


def facts(plan: Plan) -> list[tuple[str, str, str]]:
    """The statistics of the log: a label, a value and a remark each."""
    seen = plan.traffic
    remark = "" if plan.sample_rate == 1 else f"of which {plan.sample_rate:.3g} analysed"
    rows = [("requests", f"{plan.requests:,}", remark)]
    if seen.seconds is not None and seen.requests_per_second is not None:
        rows.append(
            ("requests a second", f"{seen.requests_per_second:,.4g}", f"over {span(seen.seconds)}")
        )
    rows += [
        ("distinct keys", f"{seen.distinct_keys:,}", ""),
        (
            "asked for once",
            f"{seen.one_hit_keys:.1%}",
            f"of the keys; {seen.one_hit_requests:.1%} of the requests",
        ),
        ("top 1% of the keys", f"{seen.top_1_percent:.1%}", "of the requests"),
        ("top 10% of the keys", f"{seen.top_10_percent:.1%}", "of the requests"),
    ]
    if seen.zipf is not None:
        fit = f"most likely for the top {seen.zipf.keys:,} keys"
        rows.append(("Zipf exponent", f"{seen.zipf.exponent:.2f}", fit))
    if seen.object_bytes is not None and seen.working_set_bytes is not None:
        rows.append(("mean object", size(seen.object_bytes), ""))
        rows.append(("all objects", size(seen.working_set_bytes), "the largest useful cache"))
    rows.append(("most hits possible", f"{plan.attainable:.1%}", "first requests miss always"))
    return rows


def slice_length(plan: Plan) -> str:
    """How long a slice of the working set over time is."""
    count = len(plan.traffic.slices)
    if plan.traffic.seconds is not None:
        return span(plan.traffic.seconds / count)
    return f"{plan.requests / count:,.0f} requests"


def _traffic(plan: Plan) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim")
    for row in facts(plan):
        table.add_row(*row)
    slices = plan.traffic.slices
    mean = round(sum(part.distinct_keys for part in slices) / len(slices))
    each = f"distinct keys in each {slice_length(plan)}, on average"
    table.add_row("working set", f"{mean:,}", each)
    table.add_row("", "", _spark(slices))
    table.add_row()
    return table


def _spark(slices: tuple[Slice, ...]) -> str:
    most = max(part.distinct_keys for part in slices) or 1
    return "".join(BARS[part.distinct_keys * 7 // most] for part in slices)


def _chart(plan: Plan, width: int) -> object:
    x = np.array([outcome.entries or 1 for outcome in plan.curve], float)
    lines = []
    for policy, ratios in plan.policies.items():
        known = [(at, 1 - ratio) for at, ratio in zip(x, ratios, strict=True) if ratio is not None]
        if known:
            lines.append(Line(policy, STYLES[policy], *np.array(known).T))
    y = np.array([1 - outcome.hit_ratio for outcome in plan.curve])
    lines.append(Line(OURS, STYLES[OURS], x, y))
    return log_chart(
        lines,
        width=width,
        height=16,
        x_tick=lambda value: f"{value:,.0f}",
        y_tick=lambda value: f"{value:.0%}",
        y_ticks=[0, 0.25, 0.5, 0.75, 1],
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.pad_edge = False
    table.padding = (0, 1, 0, 0)
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left", no_wrap=True)
    return table


def _curve(plan: Plan) -> Table:
    costs = ["cost saved"] if plan.curve[0].cost_saved is not None else []
    table = _table(
        "Hit ratio by entries", "entries", "memory", OURS, *plan.policies, "latency", *costs
    )
    for at, outcome in enumerate(plan.curve):
        others = (ratios[at] for ratios in plan.policies.values())
        table.add_row(
            f"{outcome.entries:,}",
            size(outcome.memory_bytes),
            f"[bold green]{outcome.hit_ratio:.1%}[/]",
            *("-" if ratio is None else f"{ratio:.1%}" for ratio in others),
            duration(outcome.latency * 1e9),
            *(f"{outcome.cost_saved:.1%}" for _ in costs),
        )
    return table


def _byte_curve(plan: Plan) -> Table:
    title = "Bounded by bytes, keys and overhead included"
    table = _table(title, "max_bytes", "hit ratio", "byte hit ratio", "latency")
    for outcome in plan.byte_curve:
        table.add_row(
            size(outcome.memory_bytes),
            f"{outcome.hit_ratio:.1%}",
            f"{outcome.byte_hit_ratio or 0:.1%}",
            duration(outcome.latency * 1e9),
        )
    return table


def sizes(plan: Plan) -> list[tuple[str, Outcome | None]]:
    """The sizes that were looked for or asked about, each with what it is."""
    rows: list[tuple[str, Outcome | None]] = [("recommended", plan.recommended)]
    rows += [(f"to hit {target.hit_ratio * 100:.4g}%", target.outcome) for target in plan.targets]
    rows += [("asked for", outcome) for outcome in plan.asked]
    return rows


def _sizes(plan: Plan) -> Table:
    table = _table("Sizes", "", "entries", "memory", "hit ratio", "mean latency")
    for label, outcome in sizes(plan):
        if outcome is None:
            table.add_row(label, "-", "-", f"≤ {plan.attainable:.1%}", "not reachable")
        else:
            table.add_row(
                label,
                "-" if outcome.entries is None else f"{outcome.entries:,}",
                size(outcome.memory_bytes),
                f"{outcome.hit_ratio:.1%}",
                duration(outcome.latency * 1e9),
                style="bold" if label == "recommended" else "",
            )
    return table


def money(plan: Plan) -> list[tuple[str, float, float]]:
    """What the recommended cache saves: a label, and the amount in a day and in a month."""
    best = plan.recommended
    rows = {
        "GPU-hours saved": best.gpu_hours_a_day,
        "price of these": best.saved_a_day,
        "price of the memory": best.memory_a_day,
        "net saving": best.net_a_day,
    }
    return [(label, day, day * MONTH) for label, day in rows.items() if day is not None]


def _money(plan: Plan) -> Table:
    table = _table("What the recommended cache saves", "", "a day", f"in {MONTH} days")
    for label, day, month in money(plan):
        table.add_row(label, amount(day), amount(month))
    return table
