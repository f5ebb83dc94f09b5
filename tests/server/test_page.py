"""The status page in a real browser: what it shows, what it asks for, what it does not run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cachecore import Cache, TieredCache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import http, status
from cachecore.server.http import StatusServer
from cachecore.server.status import shown
from cachecore.tiers import MmapTier, RedisTier
from cachecore.tiers.testing import eventually
from server.browser import Browser
from servers import redis_server

HOSTILE = [
    "<script>window.pwned = 1</script>", '"><img src=x onerror="window.pwned = 1">',
    "</li></ol><svg onload=window.pwned=1>", "'; window.pwned = 1; //", "javascript:window.pwned=1",
    "{{constructor.constructor('window.pwned=1')()}}", "tab\tline\nreturn\rnull\0escape\x1b[31m",
    "\u202egnp.exe", "\u2066\u200b\ufeff", "\ud800", "x" * 5000, "", " ", "&lt;&amp;", "日本語 é",
    b"\x00\xff\xfe", b"<b>plain</b>", b"\xf0\x9f\x98\x80", 17, 10**100, 2.5, None, True,
    ("user", 1, (2, 3)), frozenset([1]),
]  # fmt: skip


class Page:
    """The page of a server, open in a browser."""

    def __init__(self, browser: Browser, server: StatusServer, **options: Any) -> None:
        self.browser, self.server = browser, server
        browser.open(server.url, **options)
        browser.wait("document.getElementById('live').textContent === 'live'")

    def status(self) -> Any:
        with urlopen(f"{self.server.url}status.json") as answer:
            return json.load(answer)

    def value(self, expression: str) -> Any:
        return self.browser.evaluate(expression)

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({selector!r}).innerText"))

    def counts(self) -> dict[str, str]:
        """The list of all counts."""
        pairs = """[...document.querySelectorAll("#counts div")].map(
            each => [each.children[0].textContent, each.children[1].textContent])"""
        return dict(self.value(pairs))

    def tiles(self) -> dict[str, tuple[str, str]]:
        """The value and the note of each tile, by its name."""
        found = """[...document.querySelectorAll(".tile")].map(each => [
            each.querySelector(".name").textContent, each.querySelector("strong").textContent,
            each.querySelector(".note").textContent])"""
        return {name: (value, note) for name, value, note in self.value(found)}

    def keys(self) -> list[list[str]]:
        """The hottest keys, each with its number."""
        found = """[...document.querySelectorAll("#keys li")].map(
            each => [each.querySelector(".key").title, each.querySelector("b").textContent])"""
        return list(self.value(found))

    def check(self) -> None:
        """Nothing was asked of others, nothing failed, and nothing ran that should not."""
        asked = {each["request"]["url"] for each in self.browser.told("Network.requestWillBeSent")}
        assert {url for url in asked if not url.startswith(self.server.url)} <= {
            url for url in asked if url.startswith("data:image/svg+xml,")
        }
        assert self.browser.told("Runtime.exceptionThrown") == []
        assert self.browser.told("Log.entryAdded") == []  # a policy violated, a file missing
        assert self.browser.told("Page.javascriptDialogOpening") == []
        assert self.value("window.pwned === undefined")


@pytest.fixture
def collector() -> CacheCollector:
    return CacheCollector(None)


@pytest.fixture
def server(collector: CacheCollector, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusServer]:
    """A server whose history and page are ten times as fast as usual."""
    monkeypatch.setattr(http, "INTERVAL", 0.1)
    monkeypatch.setattr(status, "INTERVAL", 0.1)
    monkeypatch.setattr(status, "FRESH", 0.1)
    with StatusServer(collector, port=0, title="ranker-1") as serving:
        yield serving


# --- what it shows


def test_numbers_are_those_of_the_status(
    browser: Browser, server: StatusServer, collector: CacheCollector, tmp_path: Path
) -> None:
    tiers = [MmapTier(tmp_path / "m", max_bytes="4MB")]
    with TieredCache(
        500, max_bytes="1MB", tiers=tiers, loader=lambda key: key * 10, namespace="users"
    ) as cache:
        collector.add(cache)
        for at in range(3000):
            cache.get(f"key{at % 7 * at % 900}")
        page = Page(browser, server)
        told = page.status()["caches"][0]
        counts = page.counts()
        for name, field in [("inserts", "inserts"), ("deletions", "deletions")]:
            assert counts[name] == f"{told[field]:,}"
        hits, misses = told["results"]["hit"], told["results"]["miss"]
        assert (counts["hits"], counts["misses"]) == (f"{hits:,}", f"{misses:,}")
        for reason, count in told["evictions"].items():
            assert counts[reason] == f"{count:,}"
        for name, count in told["tiers"][0]["events"].items():
            assert counts[f"mmap: {name.replace('_', ' ')}"] == f"{count:,}"
        ratio = f"{hits / (hits + misses) * 100:.1f} %"
        tiles = page.tiles()
        assert tiles["Hit ratio, last minute"] == (ratio, f"{ratio} since start")
        assert tiles["Entries"] == (f"{told['entries']}", "of 500")
        assert tiles["Memory"][1] == "of 1 MB"
        assert tiles["Memory"][0] == f"{told['bytes'] / 1024:.3g} KB"
        rows = page.value("""[...document.querySelectorAll("#tiers tbody tr")].map(
            row => [...row.children].map(cell => cell.textContent))""")
        mmap = told["tiers"][0]["results"]
        assert [row[:2] for row in rows] == [
            ["this process", ratio],
            ["mmap", f"{mmap['hit'] / (mmap['hit'] + mmap['miss']) * 100:.1f} %"],
            ["loader", "–"],
        ]
        bars = page.value("""[...document.querySelectorAll("#latency title")].map(
            each => Number(each.textContent.split(": ")[1].replaceAll(",", "")))""")
        assert sum(bars) == told["loads"]["calls"]
        assert [n for n in bars if n] == [n for n in told["loads"]["counts"] if n]
        assert page.keys() == [
            [each["key"], f"{each['frequency']:,}"] for each in told["hottest"]
        ]  # fmt: skip
        assert page.text("#title") == "ranker-1"
        assert page.value("document.title") == f"{ratio} hits – ranker-1"
        page.check()


def test_it_is_live(browser: Browser, server: StatusServer, collector: CacheCollector) -> None:
    cache: Cache[int, int] = Cache(100, name="c")
    collector.add(cache)
    page = Page(browser, server)
    assert page.counts()["hits"] == "0"
    assert page.text("#ratio-note") == "no requests yet"
    for at in range(150):
        cache[at] = at
    for at in range(1234):
        cache.get(at % 200)
    hits = cache.stats().hits
    browser.wait(f"document.getElementById('counts').textContent.startsWith('hits{hits:,}misses')")
    browser.wait("document.querySelectorAll('#ratio .line, #ratio .area').length > 0")
    browser.wait("document.querySelectorAll('#size .area').length > 0")
    browser.wait("document.querySelectorAll('#leaving .stack').length > 0")
    page.check()


def test_charts_show_values_under_the_pointer(
    browser: Browser, server: StatusServer, collector: CacheCollector
) -> None:
    cache: Cache[int, int] = Cache(100, name="c")
    collector.add(cache)
    for at in range(50):
        cache[at] = at
    page = Page(browser, server)
    browser.wait("document.querySelectorAll('#size .area').length > 0")
    x, y, width, height = page.value("""(({x, y, width, height}) => [x, y, width, height])(
        document.getElementById("size").getBoundingClientRect())""")
    place = {"x": x + width - 8, "y": y + height / 2}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
    browser.wait("document.querySelector('#size .tip').innerText.includes('entries 50')")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.wait("document.querySelector('#size .tip').hidden")
    for button in range(2):
        page.value(f"document.querySelectorAll('#spans button')[{button}].click()")
        assert page.value("document.querySelectorAll('#spans [aria-pressed=true]').length") == 1
    page.check()


def test_caches_are_chosen(
    browser: Browser, server: StatusServer, collector: CacheCollector
) -> None:
    caches: list[Cache[str, int]] = [Cache(10), Cache(20)]
    collector.add(caches[0], "one")
    collector.add(caches[1], "two <b>&")
    page = Page(browser, server)
    assert page.tiles()["Entries"][1] == "of 10"
    page.value("document.querySelectorAll('#caches button')[1].click()")
    assert page.tiles()["Entries"][1] == "of 20"
    assert page.value("decodeURIComponent(location.hash)") == "#two <b>&"
    assert page.text("#caches [aria-pressed=true]") == "two <b>&"
    del caches[1]
    browser.wait("document.getElementById('caches').hidden")
    assert page.tiles()["Entries"][1] == "of 10"
    page.check()


def test_without_caches_it_says_so(browser: Browser, server: StatusServer) -> None:
    page = Page(browser, server)
    assert "no caches" in page.text("#about")
    assert page.value("document.getElementById('main').hidden")
    page.check()


def test_a_tier_that_is_down_is_told(
    browser: Browser, server: StatusServer, collector: CacheCollector, tmp_path: Path
) -> None:
    redis = redis_server(tmp_path)
    tiers = [RedisTier(f"redis://127.0.0.1:{redis.port}", name="<i>redis</i>")]
    with TieredCache(10, tiers=tiers, loader=str.upper, namespace="c") as cache:
        collector.add(cache)
        cache.get("a")
        page = Page(browser, server)
        assert page.text("#tiers .pill") == "closed"
        assert page.text("#notices") == ""
        redis.kill()
        for at in range(10):
            cache.get(f"b{at}")
        browser.wait("document.querySelectorAll('#tiers .pill.bad').length")
        assert page.text("#tiers .pill") == "open"
        assert "<i>redis</i> is not asked" in page.text("#notices")
        page.check()
    redis.kill()


def test_a_server_that_goes_and_comes_back(
    browser: Browser, collector: CacheCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "INTERVAL", 0.1)
    cache: Cache[str, int] = Cache(10, name="c")
    collector.add(cache)
    with StatusServer(collector, port=0) as server:
        page = Page(browser, server)
    browser.wait("document.getElementById('live').textContent.startsWith('no answer since')")
    assert page.value("document.body.classList.contains('gone')")
    cache["a"] = 1
    with StatusServer(collector, port=server.port):
        browser.wait("document.getElementById('live').textContent === 'live'")
        assert page.counts()["inserts"] == "1"
        assert not page.value("document.body.classList.contains('gone')")


def test_keys_that_are_not_to_be_shown(browser: Browser, collector: CacheCollector) -> None:
    cache: Cache[str, int] = Cache(10, name="c")
    collector.add(cache)
    cache["secret"] = 1
    with StatusServer(collector, port=0, keys=False) as server:
        page = Page(browser, server)
        assert page.text("#keys-note") == "Keys are not shown here."
        assert "secret" not in page.value("document.documentElement.innerHTML")


# --- what it does not run


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
            assert {key for key, _ in page.keys()} == {shown(key) for key in part}
            assert page.value("document.querySelectorAll('#keys *').length") == 4 * len(part)
            assert page.value("document.images.length + document.scripts.length") == 1
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
        "document.body.append(document.createElement('iframe')),"
        " document.body.lastChild.src = 'http://127.0.0.2/x'",
        "(each => { each.textContent = 'window.pwned = 1'; document.body.append(each); })"
        "(document.createElement('script'))",
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
    (entry,) = browser.told("Log.entryAdded")
    assert "Content Security Policy" in entry["entry"]["text"]
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


# --- how it looks


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(
    browser: Browser, server: StatusServer, collector: CacheCollector, tmp_path: Path,
    width: int, scheme: str,
) -> None:  # fmt: skip
    tiers = [MmapTier(tmp_path / "m", max_bytes="4MB", name="a tier with a long name" * 3)]
    with TieredCache(10, tiers=tiers, loader=str, namespace="long-" * 30) as cache:
        collector.add(cache)
        for at in range(100):
            cache.get("x" * 150 + str(at))
        page = Page(browser, server, width=width, scheme=scheme)
        browser.wait("document.querySelectorAll('#size .area').length > 0")
        page.value("document.querySelector('details').open = true")
        root = "document.documentElement"
        assert page.value(f"{root}.scrollWidth <= {root}.clientWidth")
        dark = page.value("""getComputedStyle(document.body).backgroundColor
            .match(/\\d+/g).every(each => each < 64)""")
        assert dark == (scheme == "dark")
        page.check()


def luminance(colour: str) -> float:
    """As of WCAG 2.1."""
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(scheme: int) -> None:
    """The contrast of every text with what is behind it is at least 4.5, of lines at least 3."""
    style = files("cachecore.server").joinpath("page", "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[scheme]))
    text = [("ink", "card"), ("ink", "back"), ("soft", "card"), ("soft", "back"), ("soft", "pale"),
            ("blue", "back"), ("good", "good-pale"), ("warn", "warn-pale"), ("bad", "bad-pale"),
            ("ink", "blue-pale"), ("card", "ink")]  # fmt: skip
    lines = [(name, "card") for name in ("blue", "teal", "orange", "violet", "grey")]
    for pairs, least in ((text, 4.5), (lines, 3)):
        for front, back in pairs:
            bright, dim = sorted(map(luminance, (colours[front], colours[back])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= least, (front, back)
