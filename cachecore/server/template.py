"""Settings as text: the commented TOML that `cachecore init` writes, and the table of the docs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cachecore.server.settings import GROUPS, About, abouts, defaults
from cachecore.server.values import SIZE, TIME, TIME_OR_ZERO

SIZE_UNITS = ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)
TIME_UNITS = ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)
HEAD = """\
# Settings of cachecore. What begins with # is the default, or an example; remove the # to say it.
# Sizes are such as "512MB" (units of 1024), times such as "90s", "10min" or "2d".
# Relative paths begin at the folder of this file. Keep it to yourself (mode 0600) if it holds a
# password. Options of `cachecore serve` and `start` go before what is said here.
"""


def toml(chosen: Mapping[str, tuple[Any, str]]) -> str:
    """All settings with what they mean; those `chosen` are in force: a value, and the reason."""
    lines = [HEAD]
    group, known = "", defaults()
    for name, about in abouts():
        if about.group != group:
            group = about.group
            lines.append(f"\n# --- {GROUPS[group]} ---\n")
        lines.append(f"# {about.meaning}")
        if name in chosen:
            value, reason = chosen[name]
            lines += [f"# {line}" for line in reason.splitlines()]
            lines.append(f"{name} = {literal(value, about)}\n")
        else:
            if about.shown:
                lines.append(f"# By default {about.shown}.")
            value = known[name] if about.example is None else about.example
            lines.append(f"# {name} = {literal(value, about)}\n")
    return "\n".join(lines)


def table() -> str:
    """All settings as a table in Markdown."""
    lines = ["| setting | default | what it means |", "|---|---|---|"]
    known = defaults()
    for name, about in abouts():
        default = about.shown
        if not default:
            value = known[name]
            default = "none" if value in (None, ()) else f"`{literal(value, about)}`"
        also = f" Or `{name}_file`: a file that holds it." if about.secret else ""
        lines.append(f"| `{name}` | {default} | {about.meaning}{also} |")
    return "\n".join(lines)


def literal(value: Any, about: About) -> str:
    """A value as TOML has it, sizes and times in their largest whole unit."""
    if about.kind is SIZE and isinstance(value, int):
        value = _in_units(value, SIZE_UNITS)
    elif about.kind in (TIME, TIME_OR_ZERO) and isinstance(value, float):
        value = _in_units(int(value), TIME_UNITS) if value else 0
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return f"[{', '.join(literal(part, about) for part in value)}]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _in_units(value: int, units: tuple[tuple[str, int], ...]) -> Any:
    return next((f"{value // size}{unit}" for unit, size in units if value % size == 0), value)
