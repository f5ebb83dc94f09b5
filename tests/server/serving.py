"""A server as a process of its own: serving.py PORT SOCKET LOOP [OPTION=N ...]."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from cachecore import Cache
from cachecore.server.service import Service, run, serve, size_of


async def main(port: str, path: str, *options: str) -> None:
    pairs = (option.split("=") for option in options)
    limits: dict[str, Any] = {name: int(value) for name, value in pairs}
    service = Service(
        Cache(max_bytes="256MB", getsizeof=size_of),
        port=int(port),
        unix_socket=Path(path),
        **limits,
    )
    await serve(service)
    counts = service.engine
    print("executed", counts.executed, "refused", counts.refused, counts.closes, flush=True)


if __name__ == "__main__":
    port, path, loop, *options = sys.argv[1:]
    (asyncio.run if loop == "asyncio" else run)(main(port, path, *options))
