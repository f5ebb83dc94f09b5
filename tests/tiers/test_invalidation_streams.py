"""Invalidation by streams: nothing is lost over a disconnect, and where it may be, that is told."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cachecore.tiers.changes import EVERYTHING, debezium
from cachecore.tiers.invalidation import TURN, Streams
from cachecore.tiers.testing import eventually
from servers import Server, redis_server
from tiers.listeners import Told, client_of, listening, url_of


def add(client: Any, *keys: bytes, **settings: Any) -> None:
    for key in keys:
        client.xadd("s", {"key": key}, **settings)


def at_end(client: Any) -> str:
    """The id of the stream's last entry."""
    end: bytes = client.xinfo_stream("s")["last-generated-id"]
    return end.decode()


def told_of(source: Streams, told: Told | None = None) -> Told:
    """What a source tells until it is trusted."""
    with listening(source, told) as told:
        pass
    return told


# --- nothing is lost


def test_nothing_is_lost_over_disconnects_under_load(client: Any, running: Server) -> None:
    keys = [b"%05d" % at for at in range(10_000)]
    source = Streams(client, "s")

    def write() -> None:
        with client_of(running) as writer:
            for key in keys:
                try:
                    add(writer, key)
                except ConnectionError:  # killed as well
                    add(writer, key)

    with listening(source) as told:
        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            time.sleep(0.1)
            mine = [each for each in client.client_list() if each["cmd"].startswith("x")]
            for each in mine:
                if each["cmd"] != "xadd":
                    client.client_kill_filter(_id=each["id"])
        writer.join()
        eventually(lambda: source.position == at_end(client))
        assert told.keys == keys
        eventually(lambda: source.connected)
        assert source.stats()["reconnects"] == source.stats()["losses"] > 2
        assert told.calls.count("forget_all") == 1


def test_a_sink_that_does_not_keep_up(client: Any) -> None:
    source = Streams(client, "s", heartbeat=0.2)
    with listening(source) as told:
        told.act = lambda call: call == "forget" and time.sleep(0.2)
        keys = [b"%d" % at for at in range(6 * TURN)]
        with client.pipeline() as many:
            add(many, *keys)
            many.execute()
        told.wait("distrust")
        told.wait("forget", "trust")
        told.wait_for(*keys)
        assert "forget_all" not in told.calls[3:]


def test_a_saved_position(client: Any) -> None:
    first = Streams(client, "s")
    assert first.position is None
    with listening(first) as told:
        assert first.position == "0-0"
        add(client, b"1", b"2")
        told.wait_for(b"1", b"2")
        eventually(lambda: first.position == at_end(client))
    add(client, *(b"%d" % at for at in range(3 * TURN)))
    position = first.position
    assert position is not None
    second = Streams(client, "s", last_id=position)
    assert second.position == position
    told = told_of(second)
    assert told.keys == [b"%d" % at for at in range(3 * TURN)]
    assert told.calls[0] == "distrust"
    assert set(told.calls[1:-2]) == {"forget"}
    assert told.calls[-2:] == ["trust", "distrust"]
    assert second.position == at_end(client)


def test_where_it_begins(client: Any) -> None:
    add(client, b"1", b"2")
    assert told_of(Streams(client, "s")).keys == []
    assert told_of(Streams(client, b"s", last_id="0")).keys == [b"1", b"2"]
    assert told_of(Streams(client, "s", last_id=b"0-0")).calls == [
        "distrust", "forget", "trust", "distrust",
    ]  # fmt: skip
    assert told_of(Streams(client, "s", last_id=at_end(client))).calls == [
        "distrust", "trust", "distrust",
    ]  # fmt: skip


# --- gaps


def test_a_stream_that_was_trimmed_meanwhile(client: Any) -> None:
    source = Streams(client, "s")
    told = told_of(source)
    add(client, *(b"%d" % at for at in range(10)), maxlen=3, approximate=False)
    told_of(source, told)
    assert told.calls[-4:] == ["distrust", "forget_all", "trust", "distrust"]
    add(client, b"after")
    assert told_of(source).keys == [b"after"]


def test_a_stream_that_was_trimmed_while_it_was_read(client: Any) -> None:
    source, go_on = Streams(client, "s"), threading.Event()
    with listening(source) as told:
        told.act = lambda call: call == "forget" and go_on.wait(10)
        add(client, b"first")
        told.wait("forget")
        add(client, *(b"%d" % at for at in range(50)), maxlen=10, approximate=False)
        go_on.set()
        told.wait("trust", "forget", "forget_all")
        told.keys.clear()
        add(client, b"after")
        told.wait_for(b"after")
        assert source.stats()["losses"] == 0


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_stream_that_was_deleted(meanwhile: bool, client: Any) -> None:
    add(client, b"1")
    source = Streams(client, "s", last_id="0", heartbeat=0.2)
    with listening(source) as told:
        told.wait_for(b"1")
        if meanwhile:
            source.stop()
        client.delete("s")
        if meanwhile:
            source.start(told)
        told.wait(*(["forget_all", "trust"] if meanwhile else ["forget_all"]))
        eventually(lambda: source.position == "0-0")
        client.xadd("s", {"key": "again"}, id="5-1")  # by a clock that is behind
        told.wait_for(b"again")
        assert told.calls.count("forget_all") == 1


def test_a_stream_that_went_back(client: Any) -> None:
    add(client, b"1")
    source = Streams(client, "s", last_id="9999999999999-0")
    with listening(source) as told:
        assert told.calls == ["distrust", "forget_all", "trust"]
        add(client, b"2")
        told.wait_for(b"2")


def test_an_entry_that_was_deleted(client: Any) -> None:
    add(client, b"1")
    source = Streams(client, "s")
    told = told_of(source)
    add(client, b"2")
    client.xdel("s", at_end(client))
    add(client, b"3")
    told_of(source, told)
    assert told.calls[-4:] == ["distrust", "forget_all", "trust", "distrust"]


# --- what entries say


def test_entries_of_append(client: Any) -> None:
    source, other = Streams(client, "s"), Streams(client, "s", maxlen=100)
    with listening(source) as told:
        source.append([b"own"])
        source.append_all()
        other.append([])
        other.append([b"1", b"\0\xff"])
        client.execute_command("XADD", "s", "*", "key", "2", "by", "hand", "key", "3")
        told.wait_for(b"1", b"\0\xff", b"2", b"3")
        assert "forget_all" not in told.calls[3:]
        other.append_all()
        told.wait("forget_all")
        client.xadd("s", {"what": "?"})  # nobody knows
        told.wait("forget_all", "forget_all")
        other.append(b"%d" % at for at in range(2500))
        eventually(lambda: len(told.keys) == 2500)
        for _ in range(1000):
            other.append([b"k"])
        assert client.xlen("s") <= 300


def test_a_function_that_fails(client: Any) -> None:
    def key_of(event: dict[bytes, bytes]) -> Any:
        return {
            b"one": "1", b"bytes": b"2", b"two": ["3", b"4"], b"none": None, b"empty": [],
            b"all": EVERYTHING, b"wrong": 5,
        }[event[b"what"]]  # fmt: skip

    source = Streams(client, "s", key_of=key_of)
    with listening(source) as told:
        for what in ("one", "none", "bytes", "empty", "two"):
            client.xadd("s", {"what": what})
        told.wait_for(b"1", b"2", b"3", b"4")
        for count, what in enumerate(("all", "wrong", "unknown"), 1):
            client.xadd("s", {"what": what})
            told.wait(*["forget_all"] * count)
        assert source.stats()["errors"] == 2
        client.xadd("s", {"what": "one"})
        told.wait_for(b"1")
        assert source.stats()["losses"] == 0


def test_change_events(client: Any) -> None:
    def event(**change: Any) -> dict[str, str]:
        change["source"] = {"table": change.pop("table", "users")}
        return {json.dumps({"payload": {"id": 1}}): json.dumps({"payload": change})}

    source = Streams(client, "s", key_of=debezium("users", format="user:{id}"))
    with listening(source) as told:
        client.xadd("s", event(op="c", before=None, after={"id": 1}))
        client.xadd("s", event(op="c", before=None, after={"id": 9}, table="others"))
        client.xadd("s", event(op="u", before={"id": 1}, after={"id": 2}))
        client.xadd("s", event(op="d", before={"id": 2}, after=None))
        client.xadd("s", {"{}": "default"})
        told.wait_for(b"user:1", b"user:1", b"user:2", b"user:2")
        client.xadd("s", event(op="t", before=None, after=None))
        told.wait("forget_all")
        assert source.stats()["errors"] == 0


def test_no_stream_under_that_key(client: Any, running: Server) -> None:
    client.set("s", "text")
    source, told = Streams(url_of(running), "s"), Told()
    source.start(told)
    try:
        eventually(lambda: source.stats()["failures"] >= 2)
        assert told.calls == ["distrust"]
        client.delete("s")
        told.wait("forget_all", "trust")
    finally:
        source.stop()


def test_it_survives_a_restart_of_a_server_that_keeps_its_data(tmp_path: Path) -> None:
    server = redis_server(tmp_path / "r", "--appendonly", "yes", "--appendfsync", "always")
    try:
        source = Streams(url_of(server), "s", heartbeat=0.2)
        with listening(source) as told:
            add(client_of(server), b"1")
            told.wait_for(b"1")
            server.kill()
            told.wait("distrust")
            server.start()
            told.wait("distrust", "trust")
            add(client_of(server), b"2")
            told.wait_for(b"2")
    finally:
        server.kill()
