"""Proxy mode: the service in front of a Redis, whose hot keys it serves from its own memory.

    proxy.py     the whole: nodes, clients, counts
    tracking.py  the shared connections that fill the cache and hear of changes
    stream.py    such a connection
    guest.py     a client: what is answered here, what goes upstream, in which order
    role.py      what the client has become: nobody in particular, or itself
    line.py      a client's own connection to an upstream
    commands.py  what the upstream's COMMAND table says of keys
    reads.py     the commands that are answered from the cache

What is promised. A key that was changed by whomever is not served any more once Redis'
invalidation has been read; a client, and whoever hears of its write after it was acknowledged,
never reads what was there before through the same proxy. While the upstream cannot be reached,
cached keys are served for `max_stale` seconds, and counted. A command that was sent is never
repeated, but for those that a Cluster's node refused (MOVED, ASK).

What a client is told in case of failure:

    -ERR upstream HOST unavailable: WHY; nothing was done
    -ERR upstream connection lost: WHY; the command may have been executed

What it is not. SWAPDB is seen when a client of the proxy sends it, not when others or scripts do:
Redis does not tell who tracks. Keys in databases above 255 are not cached. After RESET behind a
password a client is not served from the cache any more.
"""

from cachecore.server.proxy.proxy import Proxy as Proxy
