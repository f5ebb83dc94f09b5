"""Proxy mode: the service in front of a Redis, whose hot keys it serves from its own memory.

    proxy.py     the whole: nodes, clients, counts
    tracking.py  the shared connections that fill the cache and hear of changes
    stream.py    such a connection
    guest.py     a client: what is answered here, what goes upstream, in which order
    role.py      what the client has become: nobody in particular, or itself
    line.py      a connection for commands, a client's own or one that is shared
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

Who may do what. Where the server has users of its own (`password`, `users_file`), clients are
those: AUTH and HELLO AUTH are checked here and never forwarded, nothing but NOAUTH is said before,
and each command is judged by what the upstream's COMMAND says of it, within MULTI and tunnels, too.
Upstream they all are the user of the URL, and so share what is cached. Where it has none, AUTH goes
upstream: who has authenticated, but with the URL's own words, is asked for nothing but there, as
itself.

Which connection. Short writes of clients that are nobody in particular go on one that they share: a
call to the system then sends those of many. (Measured for SET with 50 clients against Redis itself:
0.73; with a connection for each client 0.43-0.53.) All that depends on what the client said before
goes on its own. What waits for a reply on the one is never overtaken on the other.

What it is not. SWAPDB is seen when a client of the proxy sends it, not when others or scripts do:
Redis does not tell who tracks. Keys in databases above 255 are not cached.
"""

from cachecore.server.proxy.proxy import Proxy as Proxy
