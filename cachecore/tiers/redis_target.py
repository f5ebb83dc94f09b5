"""What a URL or a redis-py client says about where a Redis is and how to be let in."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis.connection import parse_url

from cachecore.tiers.redis_link import Access, Node
from cachecore.tiers.redis_route import Cluster, OneServer

Target = OneServer | Cluster

FORMS = {
    "redis": "redis://[user:password@]host[:port][/db]",
    "unix": "unix://[user:password@]/path[?db=0]",
    "redis+sentinel": "redis+sentinel://[user:password@]host[:port],.../service[/db]",
    "redis+cluster": "redis+cluster://[user:password@]host[:port],...",
}
FORMS |= {form.replace("redis", "rediss", 1): FORMS[form] for form in FORMS if form != "unix"}
# What a query may say, beside the ssl_* options of redis-py.
OPTIONS = {"username", "password", "db", "client_name", "sentinel_username", "sentinel_password"}
TLS_CLASSES = (redis.SSLConnection, redis.asyncio.SSLConnection)


def read_target(url_or_client: Any, tls_options: Mapping[str, Any]) -> tuple[Target, str]:
    """The servers, and what to call them, which holds no password.

    TypeError or ValueError say what is wrong, without repeating what may be a password.
    """
    for name in tls_options:
        if not name.startswith("ssl_"):
            raise TypeError(f"RedisTier() got an unexpected keyword argument {name!r}")
    if isinstance(url_or_client, str):
        return _of_url(url_or_client, tls_options)
    if tls_options:
        raise TypeError(f"{', '.join(tls_options)}: the client that was given has its own")
    pool = getattr(url_or_client, "connection_pool", None)
    if hasattr(url_or_client, "nodes_manager"):
        return _of_cluster(url_or_client)
    if hasattr(pool, "sentinel_manager"):
        return _of_sentinel(pool)
    if hasattr(pool, "connection_kwargs"):
        node = _node(*_settings(pool))
        return OneServer(node), str(node)
    raise TypeError(
        f"url_or_client must be a URL or a client of redis-py, not {type(url_or_client).__name__}"
    )


# --- URLs


def _of_url(url: str, tls_options: Mapping[str, Any]) -> tuple[Target, str]:
    scheme, _, rest = url.partition("://")
    if scheme not in FORMS:
        raise ValueError(f"url_or_client must begin with {'://, '.join(FORMS)}://")
    rest, _, query = rest.partition("?")
    user, _, place = rest.rpartition("@")
    names, _, path = place.partition("/")
    options: dict[str, Any] = parse_url(f"redis://?{query}")  # type: ignore[no-untyped-call]
    options.update(tls_options)
    for name in options:
        if name not in OPTIONS and not name.startswith("ssl_"):
            raise ValueError(f"url_or_client has an unknown option {name!r}")
    username, _, password = user.partition(":")
    options = {"username": unquote(username), "password": unquote(password), **options}
    tls = scheme.startswith("rediss")
    if scheme == "unix":
        node = Node(f"/{unquote(path)}", 0, _access(options, tls))
        return OneServer(node), f"unix://{node}"
    sentinel, cluster = scheme.endswith("sentinel"), scheme.endswith("cluster")
    service, _, db = path.partition("/") if sentinel else ("", "", path)
    if db:
        options["db"] = db
    hosts = [_host(name, 26379 if sentinel else 6379) for name in names.split(",")]
    # What does not fit is not repeated: it may be a piece of a password.
    if (
        None in hosts
        or bool(service) != sentinel
        or not str(options.get("db", 0)).isdecimal()
        or (cluster and int(options.get("db", 0)))
        or not (sentinel or cluster or len(hosts) == 1)
    ):
        raise ValueError(
            f"url_or_client must be of the form {FORMS[scheme]}, with %-escapes in the password"
        )
    access = _access(options, tls)
    nodes = [Node(*host, access) for host in hosts if host]
    called = f"{scheme}://{','.join(map(str, nodes))}"
    if cluster:
        return Cluster(nodes), called
    if not sentinel:
        return OneServer(nodes[0]), called
    theirs = Access(
        username=options.get("sentinel_username"),
        password=options.get("sentinel_password"),
        tls=access.tls,
    )
    sentinels = [node._replace(access=theirs) for node in nodes]
    return OneServer(None, sentinels, unquote(service), access), f"{called}/{service}"


def _host(text: str, default: int) -> tuple[str, int] | None:
    """The host and port of one of a URL's servers; None if it has no such form."""
    try:
        parts = urlsplit(f"//{text}")
        return (unquote(parts.hostname), parts.port or default) if parts.hostname else None
    except ValueError:
        return None


# --- clients


def _settings(pool: Any) -> tuple[dict[str, Any], bool]:
    """What a client's pool connects with, and whether over TLS."""
    settings: dict[str, Any] = pool.connection_kwargs
    return settings, issubclass(pool.connection_class, TLS_CLASSES)


def _node(settings: Mapping[str, Any], tls: bool) -> Node:
    access = _access(settings, tls)
    if path := settings.get("path"):
        return Node(path, 0, access)
    return Node(settings.get("host") or "localhost", int(settings.get("port") or 6379), access)


def _of_sentinel(pool: Any) -> tuple[Target, str]:
    if not pool.is_master:
        raise ValueError("url_or_client must be a client of the master: replicas take no writes")
    clients = pool.sentinel_manager.sentinels
    sentinels = [_node(*_settings(client.connection_pool)) for client in clients]
    called = f"redis+sentinel://{','.join(map(str, sentinels))}/{pool.service_name}"
    return OneServer(None, sentinels, pool.service_name, _access(*_settings(pool))), called


def _of_cluster(client: Any) -> tuple[Target, str]:
    manager = client.nodes_manager
    settings = client.get_connection_kwargs()
    kind = settings.get("connection_class")
    tls = bool(settings.get("ssl")) or (kind is not None and issubclass(kind, TLS_CLASSES))
    access = _access(settings, tls)
    nodes = [Node(each.host, int(each.port), access) for each in manager.startup_nodes.values()]
    return Cluster(nodes), f"redis+cluster://{','.join(map(str, nodes))}"


# --- being let in


def _access(settings: Mapping[str, Any], tls: bool) -> Access:
    options = {
        name: value
        for name, value in settings.items()
        # Clients list all, and asyncio's know nothing of OCSP, which is off by default.
        if name.startswith("ssl_") and value is not None and (value or "ocsp" not in name)
    }
    return Access(
        username=settings.get("username") or None,
        password=settings.get("password") or None,
        credentials=settings.get("credential_provider"),
        db=int(settings.get("db") or 0),
        client_name=settings.get("client_name"),
        tls=_tls_context(options) if tls else None,
    )


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """What redis-py would use, made by redis-py: its options and defaults are the same here."""
    try:
        context: ssl.SSLContext = redis.asyncio.SSLConnection(**options).ssl_context.get()
    except (TypeError, redis.RedisError, OSError) as error:
        raise ValueError(f"ssl options {', '.join(options)}: {error}") from error
    return context
