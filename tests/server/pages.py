"""The status page as tests see it: open in a browser, read part by part."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

from cachecore.server.http import StatusServer
from server.browser import Browser


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

    def hottest(self) -> list[list[str]]:
        """The hottest keys, each with its number."""
        found = """[...document.querySelectorAll("#keys li")].map(
            each => [each.querySelector(".key").title, each.querySelector("b").textContent])"""
        return list(self.value(found))

    def check(self) -> None:
        """Nothing was asked of others, nothing failed, and nothing ran that should not."""
        asked = {each["request"]["url"] for each in self.browser.told("Network.requestWillBeSent")}
        assert [url for url in asked if not url.startswith(self.server.url)] == []
        assert self.browser.told("Runtime.exceptionThrown") == []
        assert self.browser.told("Log.entryAdded") == []  # a policy violated, a file missing
        assert self.browser.told("Page.javascriptDialogOpening") == []
        assert self.value("window.pwned === undefined")
