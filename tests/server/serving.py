"""A server as a process of its own: serving.py PORT SOCKET LOOP [OPTION=N ...]."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cachecore import Cache
from cachecore.server.service import Service, run, serve, size_of


async def main(port: str, path: str, *options: str) -> None:
    limits = dict(option.split("=") for option in options)
    service = Service(
        Cache(max_bytes="256MB", getsizeof=size_of),
        port=int(port),
        unix_socket=Path(path),
        **{name: int(value) for name, value in limits.items()},
    )
    await serve(service)
    counts = service.engine
    print("executed", counts.executed, "refused", counts.refused, counts.closes, flush=True)


if __name__ == "__main__":
    port, path, loop, *options = sys.argv[1:]
    (asyncio.run if loop == "asyncio" else run)(main(port, path, *options))
