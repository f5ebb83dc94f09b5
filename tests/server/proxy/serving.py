"""A proxy in a process of its own: `python serving.py URL [name=number ...]` prints its port.

Names are of settings, or of attributes of the Proxy; port=0 is any that is free.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

from cachecore.server.service import Server, loop_factory
from cachecore.server.settings import Settings

OF_PROXY = ("max_fields", "max_value", "reply_timeout")


async def main(url: str, **given: Any) -> None:
    of_proxy = {name: given.pop(name) for name in OF_PROXY if name in given}
    usual = {"port": 0, "memory_limit": 64 << 20, "max_stale": 30, "upstream_timeout": 2}
    settings: dict[str, Any] = {**usual, "upstream": url, **given}
    server = Server(Settings(**settings))
    for name, value in of_proxy.items():
        setattr(server.proxy, name, value)
    print(server.port, flush=True)
    await server.run()


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"))
    pairs = [text.partition("=")[::2] for text in sys.argv[2:]]
    given = {name: float(text) if "." in text else int(text) for name, text in pairs}
    factory = None if os.environ.get("LOOP") == "asyncio" else loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(sys.argv[1], **given))
