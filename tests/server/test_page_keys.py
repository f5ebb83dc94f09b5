"""Hostile names of keys, tiers and caches: on the page they are text, and nothing runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cachecore import Cache, TieredCache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import status
from cachecore.server.http import StatusServer
from cachecore.server.status import shown
from cachecore.tiers import MmapTier
from cachecore.tiers.testing import eventually
from server.browser import Browser
from server.pages import Page

HOSTILE = [
    "<script>window.pwned = 1</script>", '"><img src=x onerror="window.pwned = 1">',
    "</li></ol><svg onload=window.pwned=1>", "'; window.pwned = 1; //", "javascript:window.pwned=1",
    "{{constructor.constructor('window.pwned=1')()}}", "tab\tline\nreturn\rnull\0escape\x1b[31m",
    "\u202egnp.exe", "\u2066\u200b\ufeff", "\ud800", "x" * 5000, "", " ", "&lt;&amp;", "日本語 é",
    b"\x00\xff\xfe", b"<b>plain</b>", b"\xf0\x9f\x98\x80", 17, 10**100, 2.5, None, True,
    ("user", 1, (2, 3)), frozenset([1]),
]  # fmt: skip


def shows(page: Page, keys: list[Any]) -> bool:
    """Whether these are the keys on the page: they are looked for now and then only."""
    return {key for key, _ in page.hottest()} == {shown(key) for key in keys}


def test_hostile_keys_and_names_do_nothing(
    browser: Browser, server: StatusServer, collector: CacheCollector, tmp_path: Path
) -> None:
    cache: Cache[Any, int] = Cache(len(HOSTILE))
    texts = [key for key in HOSTILE if isinstance(key, str) and key]
    for at in range(0, len(HOSTILE), status.HOTTEST - len(texts)):
        part = HOSTILE[at : at + status.HOTTEST - len(texts)]
        cache.clear()
        for key in part:
            cache[key] = 1
        name = texts[at % len(texts)]
        tier = MmapTier(tmp_path / f"{at}", max_bytes="4MB", name=name)
        with TieredCache(10, tiers=[tier], loader=str) as tiered:
            collector.add(cache, "c")
            collector.add(tiered, f"tiered {name}")
            page = Page(browser, server)
            eventually(partial(shows, page, part))
            assert page.value("document.querySelectorAll('#keys *').length") == 4 * len(part)
            assert page.value("document.images.length + document.scripts.length") == 2
            page.value("document.querySelectorAll('#caches button')[1].click()")
            row = "document.querySelectorAll('#tiers tbody th')[1].textContent"
            assert page.value(row) == name.encode("utf-16", "replace").decode("utf-16")
            page.check()
            collector.remove(f"tiered {name}")


@pytest.mark.parametrize(
    "code",
    [
        "document.body.append(new Image()), document.body.lastChild.src = 'http://127.0.0.2/x'",
        "fetch('http://127.0.0.2/x').catch(() => 0)",
        "document.body.append(document.createElement('script')),"  # noqa: ISC004
        " document.body.lastChild.src = 'http://127.0.0.2/x'",
        "document.body.append(document.createElement('script')),"  # noqa: ISC004
        " document.body.lastChild.textContent = 'window.pwned = 1'",
        "document.body.setAttribute('onclick', 'window.pwned = 1'), document.body.click()",
        "document.body.setAttribute('style', 'color: red')",
    ],
)
def test_the_policy_stops_what_should_not_be(
    browser: Browser, server: StatusServer, code: str
) -> None:
    """And these checks find it."""
    page = Page(browser, server)
    page.check()
    page.value(code)
    browser.wait("window.pwned === undefined")
    eventually(lambda: page.value("1") and browser.told("Log.entryAdded"))
    first = browser.told("Log.entryAdded")[0]
    assert "Content Security Policy" in first["entry"]["text"]
    with pytest.raises(AssertionError):
        page.check()


@pytest.mark.parametrize("key", HOSTILE, ids=ascii)
def test_keys_are_shown_as_short_visible_text(key: Any) -> None:
    text = shown(key)
    assert text.isprintable()
    assert len(text) <= status.LONGEST_KEY
    json.dumps(text).encode()


def test_keys_look_like_what_they_are() -> None:
    assert shown("plain é 日本") == "plain é 日本"
    assert shown("a\nb\x00") == "a\\nb\\x00"
    assert shown("\u202e") == "\\u202e"
    assert shown(b"user:1") == "user:1"
    assert shown(b"\xff\x00") == "b'\\xff\\x00'"
    assert shown("é".encode() * 150) == "é" * 150
    assert shown("é".encode() * 500) == "é" * 199 + "…"
    assert shown("x" * 500) == "x" * 199 + "…"
    assert shown(("user", 1, (2, 3))) == "(user, 1, (…))"
    assert shown(tuple(range(20))) == "(0, 1, 2, 3, 4, 5, 6, 7, …)"
    assert shown(10**100) == "<int>"
    assert shown(-17) == "-17"


def test_code_of_a_key_does_not_run() -> None:
    class Key:
        def __repr__(self) -> str:
            raise AssertionError

        __str__ = __hash__ = __eq__ = __repr__  # type: ignore[assignment]

    assert shown(Key()) == "<Key>"
    assert shown((Key(), 1)) == "(<Key>, 1)"
    assert shown(type("<script>\n", (), {})()) == "<<script>\\n>"
