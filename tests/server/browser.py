"""A headless Chromium that tests drive through the DevTools protocol, over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds that the browser may take to answer: the machine may be busy
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--disable-sync", "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


class Browser:
    """One browser process, and in it one page at a time; `messages` are all that it told."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        assert program, "chromium is not installed: see need_watchers in ci/common.sh"
        theirs, self._to = os.pipe()
        self._from, ours = os.pipe()

        # Chromium expects them as descriptors 3 and 4.
        place = f'exec "$0" "$@" 3<&{theirs} 4>&{ours}'
        # A sanitizer of ours is none of its business.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        with open(folder / "chromium.log", "wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", place, program, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
                pass_fds=(theirs, ours), stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        self._waiting, self._number = b"", 0
        self._session: str | None = None
        self._target: str | None = None
        self.messages: list[dict[str, Any]] = []

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _receive(self, end: float) -> None:
        """Wait for one message, and keep it."""
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser has ended"
            self._waiting += chunk
        line, _, self._waiting = self._waiting.partition(b"\0")
        self.messages.append(json.loads(line))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol returns, called on the page if there is one."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            call["sessionId"] = self._session
        message = memoryview(json.dumps(call).encode() + b"\0")
        while message:
            message = message[os.write(self._to, message) :]
        end = time.monotonic() + PATIENCE
        while True:
            for answer in self.messages:
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return dict(answer["result"])
            self._receive(end)

    def open(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """A new page, in place of the one before; returns when it is loaded."""
        self._session = None
        if self._target is not None:
            self.call("Target.closeTarget", targetId=self._target)
        self._target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        self.messages.clear()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        assert "errorText" not in (answer := self.call("Page.navigate", url=url)), answer
        end = time.monotonic() + PATIENCE
        while not self.told("Page.loadEventFired"):
            self._receive(end)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} is never true"
            time.sleep(0.02)
        return value

    def told(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of that name since the page was opened."""
        return [
            each["params"]
            for each in self.messages
            if each.get("method") == method and each.get("sessionId") == self._session
        ]

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
