"""Invalidation by Redis: what changed is told, whole and in order, from one thread."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore.errors import TierError
from cachecore.tiers.invalidation import FRAME, PubSub, Streams, Tracking
from cachecore.tiers.testing import eventually
from servers import Server, free_port
from tiers.listeners import KINDS, Told, change, client_of, listening, source_of, url_of

ODD = [b"k", b"\0", b"\xff\xfe", b"new\r\nline", b"*[a]?", b"x" * 5000, "\u20ac".encode()]


# --- all sources


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_what_changed(kind: str, running: Server, client: Any) -> None:
    source = source_of(kind, url_of(running))
    assert not source.connected
    with listening(source) as told:
        assert told.calls == ["distrust", "forget_all", "trust"]
        assert source.connected
        change(kind, client, *ODD)
        told.wait_for(*ODD)
        assert source.stats() == {
            "received": len(ODD), "losses": 0, "reconnects": 0, "failures": 0, "errors": 0,
        }  # fmt: skip
    assert not source.connected
    assert told.calls[-1] == "distrust"
    assert len(told.threads) == 1
    assert threading.current_thread() not in told.threads


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_over_many_heartbeats(kind: str, running: Server, client: Any) -> None:
    source = source_of(kind, url_of(running), heartbeat=0.2)
    with listening(source) as told:
        for turn in range(5):
            time.sleep(0.25)
            change(kind, client, b"%d" % turn)
        told.wait_for(*(b"%d" % turn for turn in range(5)))
        assert told.calls.count("distrust") == 1
        assert source.stats()["losses"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_listens_before_start(kind: str, running: Server, client: Any) -> None:
    before = threading.active_count()
    source = source_of(kind, url_of(running))
    source.stop()
    assert threading.active_count() == before
    told = Told()
    change(kind, client, b"earlier")
    with listening(source, told):
        change(kind, client, b"later")
        told.wait_for(b"later")
        with pytest.raises(RuntimeError, match="listens already"):
            source.start(told)
    change(kind, client, b"between")
    with listening(source, told):
        change(kind, client, b"again")
        told.wait_for(*([b"between"] if kind == "streams" else []), b"again")


@pytest.mark.parametrize("kind", KINDS)
def test_clients_of_all_kinds(kind: str, running: Server, client: Any, tmp_path: Path) -> None:
    folder = client.config_get("unixsocket")["unixsocket"]
    for where in (
        client,
        client_of(running, decode_responses=True, protocol=2),
        client_of(running, protocol=3, db=3, max_connections=1),
        redis.Redis(connection_pool=redis.BlockingConnectionPool(port=running.port, timeout=1)),
        f"unix://{folder}",
        url_of(running) + "?socket_timeout=5&health_check_interval=1",
    ):
        if kind == "streams" and not isinstance(where, str):
            where.delete("changes")
        source = source_of(kind, where)
        with listening(source) as told:
            change(
                kind, where if kind == "streams" and not isinstance(where, str) else client, *ODD
            )
            told.wait_for(*ODD)


@pytest.mark.parametrize("kind", KINDS)
def test_a_burst_is_told_whole(kind: str, running: Server, client: Any) -> None:
    keys = [b"%05d" % at for at in range(20_000)]
    with listening(source_of(kind, url_of(running))) as told:
        sender = source_of(kind, url_of(running))
        if isinstance(sender, PubSub):
            sender.publish(keys)
        elif isinstance(sender, Streams):
            sender.append(keys)
        else:
            with client.pipeline(transaction=False) as many:
                for key in keys:
                    many.set(b"a:" + key, "new")
                many.execute()
        eventually(lambda: len(told.keys) >= len(keys))
        # The server's tracking tells keys of one moment in an order of its own.
        assert (sorted(told.keys) if kind == "tracking" else told.keys) == keys
        assert told.calls.count("distrust") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_single_changes_in_a_burst(kind: str, running: Server, client: Any) -> None:
    keys = [b"%05d" % at for at in range(3000)]
    with listening(source_of(kind, url_of(running))) as told:
        with client.pipeline(transaction=False) as many:
            change(kind, many, *keys)
            many.execute()
        eventually(lambda: len(told.keys) >= len(keys))
        assert (sorted(told.keys) if kind == "tracking" else told.keys) == keys


# --- sinks that fail


def failing(call: str, times: int) -> Told:
    """A sink, a call of which raises so many times."""
    left = [times]

    def act(made: str) -> None:
        if made == call and left[0]:
            left[0] -= 1
            raise ValueError(f"{call} failed")

    told = Told()
    told.act = act
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_a_sink_that_cannot_forget(kind: str, running: Server, client: Any) -> None:
    source = source_of(kind, url_of(running))
    with listening(source, failing("forget", 1)) as told:
        change(kind, client, b"1")
        told.wait("trust", "forget", "forget_all")
        change(kind, client, b"2")
        told.wait("forget_all", "forget")
        assert source.stats()["errors"] == 1


@pytest.mark.parametrize("call", ["forget_all", "trust", "distrust"])
def test_a_sink_that_fails_at_first(call: str, running: Server, client: Any) -> None:
    source = Tracking(url_of(running))
    with listening(source, failing(call, 2)) as told:
        eventually(lambda: source.connected)
        client.set("k", "new")
        told.wait_for(b"k")
    assert source.stats()["errors"] == 2


# --- tracking


def test_tracking_keeps_to_its_prefix(running: Server, client: Any) -> None:
    with listening(Tracking(url_of(running), prefix=b"a:")) as told:
        client.mset({"b:1": "", "a": "", "ab:": "", "a:1": ""})
        client.set("a:2", "")
        told.wait_for(b"1", b"2")
    with listening(Tracking(url_of(running))) as told:
        client.set("b:1", "")
        client.set("a:2", "")
        told.wait_for(b"b:1", b"a:2")


def test_tracking_tells_every_kind_of_change(running: Server, client: Any) -> None:
    client.mset({"1": "", "2": "", "3": ""})
    with listening(Tracking(url_of(running))) as told:
        client.delete("1")
        client.append("2", "more")
        client.rename("2", "4")
        told.wait_for(b"1", b"2", b"2", b"4")
        client.hset("h", "field", "value")
        client.expire("3", 100)
        told.wait_for(b"h", b"3")
        client_of(running, db=5).set("other", "")
        told.wait_for(b"other")
        client.flushall()
        told.wait("forget_all")
        client_of(running, db=5).flushdb()
        told.wait("forget_all", "forget_all")


def test_tracking_tells_of_expiry(running: Server, client: Any) -> None:
    client.set("short", "", px=300)
    with listening(Tracking(url_of(running))) as told:
        told.wait_for(b"short")
        assert client.get("short") is None


def test_tracking_tells_of_eviction(running: Server, client: Any) -> None:
    client.set("cold", "x" * 100_000)
    client.config_set("maxmemory-policy", "allkeys-random")
    with listening(Tracking(url_of(running))) as told:
        try:
            client.config_set("maxmemory", 1)
            eventually(lambda: b"cold" in told.keys or client.get("cold") is None)
            told.wait_for(b"cold")
        finally:
            client.config_set("maxmemory", 0)


# --- pub/sub


def test_messages_of_a_channel(running: Server, client: Any) -> None:
    source, other = PubSub(url_of(running), "changes"), PubSub(client, b"changes")
    with listening(source) as told:
        other.publish([])
        other.publish([b"1", b"2"])
        source.publish([b"own"])
        source.publish_all()
        client.publish("elsewhere", "no")
        other.publish(b"%d" % at for at in (3, 4))
        told.wait_for(b"1", b"2", b"3", b"4")
        assert "forget_all" not in told.calls[3:]
        other.publish_all()
        told.wait("forget_all")
        client.publish("changes", "")
        told.wait("forget_all", "forget_all")
        assert source.stats()["errors"] == 0


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x92\xc4\x01a", b"\x92\xc4\x01a\x91\x01"])
def test_a_message_that_makes_no_sense(body: bytes, running: Server, client: Any) -> None:
    source = PubSub(url_of(running), "changes")
    with listening(source) as told:
        client.publish("changes", FRAME + body)
        told.wait("trust", "forget_all")
        client.publish("changes", "k")
        told.wait_for(b"k")
        assert source.stats()["errors"] == 1


def test_sending_to_nobody() -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    for send in (
        lambda: PubSub(url, "c").publish([b"k"]),
        lambda: PubSub(url, "c").publish_all(),
        lambda: Streams(url, "s").append([b"k"]),
        lambda: Streams(url, "s").append_all(),
    ):
        with pytest.raises(TierError, match="were not sent"):
            send()


# --- bad input


@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind: str) -> None:
    url = "redis://127.0.0.1:1"
    for where in (None, 5, b"redis://x", [url], redis.asyncio.Redis(port=1)):
        with pytest.raises(TypeError, match="url_or_client must be"):
            source_of(kind, where)
    with pytest.raises(ValueError, match="scheme"):
        source_of(kind, "http://x")
    for heartbeat in (0, -1, 0.09, math.nan, math.inf):
        with pytest.raises(ValueError, match="heartbeat must be"):
            source_of(kind, url, heartbeat=heartbeat)
    with pytest.raises(TypeError, match="heartbeat must be"):
        source_of(kind, url, heartbeat="1")


def test_bad_names_and_keys() -> None:
    url = "redis://127.0.0.1:1"
    strange: Any = 5
    with pytest.raises(TypeError, match="prefix must be"):
        Tracking(url, prefix=strange)
    for kind, name in ((PubSub, "channel"), (Streams, "stream")):
        with pytest.raises(TypeError, match=f"{name} must be"):
            kind(url, strange)
        with pytest.raises(ValueError, match=f"{name} must not be empty"):
            kind(url, "")
    wrong: list[Any] = [b"key", "key", 5, ["str"], [b"k", None]]
    for keys in wrong:
        with pytest.raises(TypeError, match="keys must be"):
            PubSub(url, "c").publish(keys)
        with pytest.raises(TypeError, match="keys must be"):
            Streams(url, "s").append(keys)
    for last_id in ("", "x", "1-x", "$-1", "-"):
        with pytest.raises(ValueError, match="last_id must be"):
            Streams(url, "s", last_id=last_id)
    with pytest.raises(TypeError, match="last_id must be"):
        Streams(url, "s", last_id=strange)
    with pytest.raises(TypeError, match="key_of must be callable"):
        Streams(url, "s", key_of=strange)
    with pytest.raises(ValueError, match="maxlen must be"):
        Streams(url, "s", maxlen=0)


def test_without_the_engine() -> None:
    code = "import sys; sys.modules['redis'] = None; import cachecore.tiers.invalidation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "cachecore-ml[redis]"' in done.stderr
