"""A server as a process of its own: serving.py PORT SOCKET LOOP [SETTING=N ...]."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from cachecore.server.service import Server, loop_factory
from cachecore.server.settings import Settings


async def main(port: str, path: str, *options: str) -> None:
    given: dict[str, Any] = {"memory_limit": "256MB", "port": int(port), "unix_socket": path}
    given |= {name: int(value) for name, value in (option.split("=") for option in options)}
    server = Server(Settings(**given))
    await server.run()
    counts = server.engine
    print("executed", counts.executed, "refused", counts.refused, counts.closes, flush=True)


if __name__ == "__main__":
    port, path, loop, *options = sys.argv[1:]
    factory = None if loop == "asyncio" else loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(port, path, *options))
