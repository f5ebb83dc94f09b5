"""The status page in a real browser: what it shows, what it asks for, what it does not run."""

from __future__ import annotations

import re
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

import pytest

from cachecore import Cache, TieredCache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import status
from cachecore.server.http import StatusServer
from cachecore.tiers import MmapTier, RedisTier
from server.browser import Browser
from server.pages import Page
from servers import redis_server

NONE = "\u2013"  # what the page shows in place of a number


# --- what it shows


def test_numbers_are_those_of_the_status(
    browser: Browser, collector: CacheCollector, tmp_path: Path
) -> None:
    tiers = [MmapTier(tmp_path / "m", max_bytes="4MB")]
    with ExitStack() as stack:
        cache = TieredCache(
            500, max_bytes="1MB", tiers=tiers, loader=lambda key: key * 10, namespace="users"
        )
        stack.enter_context(cache)
        collector.add(cache)
        for at in range(3000):
            cache.get(f"key{at % 7 * at % 900}")
        server = stack.enter_context(StatusServer(collector, port=0, title="ranker-1"))
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
            ["loader", NONE],
        ]
        bars = page.value("""[...document.querySelectorAll("#latency title")].map(
            each => Number(each.textContent.split(": ")[1].replaceAll(",", "")))""")
        assert sum(bars) == told["loads"]["calls"]
        assert [n for n in bars if n] == [n for n in told["loads"]["counts"] if n]
        assert page.hottest() == [
            [each["key"], f"{each['frequency']:,}"] for each in told["hottest"]
        ]  # fmt: skip
        assert page.text("#title") == "ranker-1"
        assert page.value("document.title") == f"{ratio} hits {NONE} ranker-1"
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
