"""The demo's catalogue and traffic: the standard library's docstrings, asked for by Zipf's law."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
EXPONENT = 1.0  # of the Zipf law: the n-th most popular text gets 1/n of the first one's requests
EPOCHS = 20  # the drift comes in as many steps
MOVED = 0.02  # the share of the texts that changes places with others at each step


def docstrings(limit: int | None, progress: Callable[[float], None]) -> dict[str, str]:
    """Every distinct docstring of the installed standard library's sources, by qualified name."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [f for f in sorted(root.rglob("*.py")) if not SKIPPED & {*f.relative_to(root).parts}]
    found: dict[str, str] = {}
    seen: set[str] = set()
    for number, file in enumerate(files):
        progress(number / len(files))
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # sources kept broken on purpose, for lib2to3's tests and the like
        module = ".".join(file.relative_to(root).with_suffix("").parts)
        for name, text in _walk(tree, module.removesuffix(".__init__")):
            if text not in seen and name not in found:
                seen.add(text)
                found[name] = text
                if len(found) == limit:
                    return found
    return found


def _walk(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Names and docstrings of a module and of the classes and functions in it."""
    if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
        yield name, text
    for field in ("body", "orelse", "handlers", "finalbody"):
        inner = getattr(node, field, [])
        for child in inner if isinstance(inner, list) else []:
            own = getattr(child, "name", None) if isinstance(child, ast.stmt) else None
            yield from _walk(child, f"{name}.{own}" if own else name)


def zipf_requests(texts: int, requests: int, seed: int) -> NDArray[np.int64]:
    """Numbers of the texts asked for. At each step of the drift some cold texts become popular."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, texts + 1) ** EXPONENT
    weights /= weights.sum()
    ranked = rng.permutation(texts)  # ranked[0] is the most popular one
    parts = []
    for length in np.diff(np.linspace(0, requests, EPOCHS + 1).astype(int)):
        parts.append(ranked[rng.choice(texts, length, p=weights)])
        # Popular places are dealt more often than others: log-uniform, as popularity is.
        places = np.exp(rng.uniform(0, np.log(texts), max(1, int(texts * MOVED)))).astype(int)
        for old, new in zip(places, rng.integers(0, texts, len(places)), strict=True):
            ranked[old], ranked[new] = ranked[new], ranked[old]
    return np.concatenate(parts)
