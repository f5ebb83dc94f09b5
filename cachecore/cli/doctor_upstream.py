"""Whether the Redis behind us can be reached, and tells what changes there (client tracking)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from urllib.parse import parse_qs, unquote, urlsplit

from cachecore.cli.client import Client, ReplyError
from cachecore.cli.doctor_checks import FAILED, OK, WARNED, Finding
from cachecore.cli.failures import Failure
from cachecore.cli.health import read
from cachecore.cli.target import Target
from cachecore.server.settings import Settings
from cachecore.server.values import Secret
from cachecore.units import duration

OLDEST = (6, 0)  # has client tracking
PINGS = 20
SLOW = 0.005  # seconds of a round trip
APART = 1.0  # seconds that clocks may differ


def check_upstream(settings: Settings) -> Iterator[Finding]:
    """The server, the master that a Sentinel names, or a node of a cluster."""
    if settings.upstream is None:
        return
    url = settings.upstream.reveal()
    kind = url.partition("://")[0].partition("+")[2]
    targets = _targets(url, kind)
    target = targets[0]
    try:
        if kind == "sentinel":
            service = urlsplit(url).path.strip("/").partition("/")[0]
            found = _master(targets, service)
            if found is None:
                advice = "is it the name in `sentinel monitor NAME`?"
                yield Finding(FAILED, "upstream", f"no sentinel knows {service!r}", advice)
                return
            target = replace(_login(url, "", 6379), host=found[0].decode(), port=int(found[1]))
            yield Finding(OK, "sentinel", f"{service} is at {target}")
        with Client(target, timeout=settings.upstream_timeout) as client:
            yield from _server(client)
            if kind == "cluster":
                yield _cluster(client)
    except (Failure, ReplyError) as error:
        advice = "is the URL right, with user and password, and is it running?"
        said = str(getattr(error, "message", error)).partition(";")[0]
        what = f"{settings.upstream}: {said}"
        yield Finding(FAILED, "upstream", what, advice)


def _server(client: Client) -> Iterator[Finding]:
    """Version, tracking, distance and clock of one server."""
    health = read(client.call(b"INFO"), None)
    what = f"{health.name} {health.version} at {client.target}"
    version = tuple(int(part) for part in re.findall(r"\d+", health.version)[:2])
    if version < OLDEST:
        yield Finding(FAILED, "upstream", what, "client tracking needs Redis 6 or later")
        return
    yield Finding(OK, "upstream", what)
    try:
        client.call(
            b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", b"%d" % client.call(b"CLIENT", b"ID")
        )
        client.call(b"CLIENT", b"TRACKING", b"OFF")
        yield Finding(OK, "tracking", "it tells what changes")
    except ReplyError as error:
        advice = "it must allow CLIENT TRACKING: of others' writes we would not know"
        yield Finding(FAILED, "tracking", str(error), advice)
    times = []
    for _ in range(PINGS):
        begin = time.perf_counter()
        client.call(b"PING")
        times.append(time.perf_counter() - begin)
    far = median(times)
    what = f"{duration(far * 1e9)} a round trip"
    if far > SLOW:
        yield Finding(WARNED, "distance", what, "misses wait so long: is there one nearer?")
    else:
        yield Finding(OK, "distance", what)
    seconds, micros = client.call(b"TIME")
    apart = int(seconds) + int(micros) / 1e6 - time.time()
    if abs(apart) > APART:
        what = f"theirs and ours differ by {apart:.1f} s"
        yield Finding(WARNED, "clocks", what, "run chrony or ntpd on both: lifetimes are at stake")


def _cluster(client: Client) -> Finding:
    text = client.call(b"CLUSTER", b"INFO").decode()
    state = re.search(r"cluster_state:(\w+)", text)
    if state is not None and state[1] == "ok":
        return Finding(OK, "cluster", "it is whole")
    return Finding(FAILED, "cluster", "it is not whole", "`redis-cli --cluster check` tells more")


def _login(url: str, prefix: str, port: int) -> Target:
    """How to come in: the URL's user and password, or, with a prefix, those of its sentinels."""
    options = {name: found[-1] for name, found in parse_qs(urlsplit(url).query).items()}
    user, password = options.get(f"{prefix}username", ""), options.get(f"{prefix}password", "")
    if not prefix:
        login = url.partition("://")[2].partition("?")[0].rpartition("@")[0]
        said_user, _, said_password = login.partition(":")
        user, password = unquote(said_user) or user, unquote(said_password) or password
    return Target(
        port=port,
        tls=url.startswith("rediss"),
        username=user,
        password=Secret(password) if password else None,
    )


def _targets(url: str, kind: str) -> list[Target]:
    """The servers, or sentinels, that a URL names."""
    place = url.partition("://")[2].partition("?")[0].rpartition("@")[2]
    if url.startswith("unix://"):
        return [replace(_login(url, "", 0), path="/" + unquote(place).lstrip("/"))]
    base = _login(url, "sentinel_", 26379) if kind == "sentinel" else _login(url, "", 6379)
    found = (urlsplit(f"//{name}") for name in place.partition("/")[0].split(","))
    return [
        replace(base, host=parts.hostname or "localhost", port=parts.port or base.port)
        for parts in found
    ]


def _master(sentinels: list[Target], service: str) -> list[bytes] | None:
    """Host and port of the master, by the first sentinel that answers."""
    problem: Failure | None = None
    for sentinel in sentinels:
        try:
            with Client(sentinel, timeout=2) as client:
                found: list[bytes] | None = client.call(
                    b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.encode()
                )
                return found
        except Failure as error:
            problem = error
    if problem is not None:
        raise problem
    return None
