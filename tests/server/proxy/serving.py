"""A proxy in a process of its own: `python serving.py URL [name=number ...]` prints its port.

`max_bytes` is the cache's, the other names are settings of Proxy; port=0 is any that is free.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

from cachecore._core import Cache
from cachecore.server.proxy import Proxy
from cachecore.server.service import Service, run, serve, size_of


async def main(url: str, **settings: Any) -> None:
    max_bytes, port = int(settings.pop("max_bytes", 64 << 20)), int(settings.pop("port", 0))
    cache: Cache[bytes, Any] = Cache(max_bytes=max_bytes, getsizeof=size_of)
    service = Service(cache, port=port, proxy=True)
    proxy = Proxy(service.engine, url, **settings)
    await proxy.start()
    print(service.port, flush=True)
    await serve(service)
    proxy.close()


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"))
    pairs = [text.partition("=")[::2] for text in sys.argv[2:]]
    settings = {name: float(text) if "." in text else int(text) for name, text in pairs}
    if os.environ.get("LOOP") == "asyncio":
        asyncio.run(main(sys.argv[1], **settings))
    else:
        run(main(sys.argv[1], **settings))
