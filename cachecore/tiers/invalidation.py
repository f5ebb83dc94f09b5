"""Sources of invalidations in Redis: client tracking, pub/sub, and streams.

    source = Tracking("redis://localhost", prefix="app:")
    source.start(sink)
    ...
    source.stop()

What changed is told by wire keys, as bytes. Tracking needs no help of those who write, and tells
of every change of the server's, expiry and eviction included. Pub/sub and streams tell of what
somebody publishes; a stream also of what was published while nobody listened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, NoReturn

from cachecore.settings import positive_int, sequence_of
from cachecore.tiers.changes import EVERYTHING, Everything, Keys, encoded
from cachecore.tiers.listening import LATE, Listener, ReplyError, Run, Sink, Wire

try:
    import msgspec
except ImportError as error:
    raise ImportError('invalidation needs msgspec: pip install "cachecore-ml[redis]"') from error

__all__ = ["EVERYTHING", "PubSub", "Sink", "Streams", "Tracking"]

BATCH = 1000  # keys in a message
TURN = 500  # entries of a stream read at a time
NOWHERE = 0, 0  # before the first entry of a stream
FRAME = b"\0cc1"  # what messages of many keys begin with
_FRAMED = msgspec.msgpack.Decoder(tuple[bytes, list[bytes] | None])


class _Pushes(Listener):
    """A source whose server pushes: it is asked whether it is there once in a `heartbeat`."""

    _command: tuple[Any, ...]  # what makes the server push
    _begun: bytes  # the first words of its answer

    def _push(self, run: Run, message: list[Any]) -> None:
        """Tell the sink what a push says."""
        raise NotImplementedError

    def _serve(self, run: Run, wire: Wire) -> NoReturn:
        wire.send(self._command)
        until = monotonic() + self.heartbeat
        while True:
            answer = wire.answer(until)
            if (answer[0] if isinstance(answer, list) else answer) == self._begun:
                break
        run.forget_all()
        run.trust()
        sent = monotonic()
        due = sent + self.heartbeat  # when to ask, and then when the answer must be there
        asked = False
        while True:
            message = wire.receive(due)
            if isinstance(message, list):
                self._counts["received"] += 1
                self._push(run, message)
            elif message is not LATE:
                # An answer comes in order: everything told before it was asked for has been read.
                asked, due = False, sent + self.heartbeat
            late = monotonic() - due
            if not asked and late >= 0:
                wire.send(("PING",))
                sent = monotonic()
                asked, due = True, sent + self.heartbeat
            elif asked and (message is LATE or late > self.heartbeat):
                raise TimeoutError("the answer is late")


class Tracking(_Pushes):
    """Every change of a key that begins with `prefix`, in any database of one server.

    Args:
        url_or_client: where, as a URL of redis-py's, or a `redis.Redis`, maybe of a Sentinel's.
        prefix: of the keys to be told of, as str or bytes; the sink gets them without it.
        heartbeat: seconds between signs of life, and for each to come (see `Listener`).

    This is CLIENT TRACKING in broadcast mode. It tells of the writes of this process too. The
    server must know it: Redis 6 and Valkey do. Of a cluster every node needs a `Tracking`.
    """

    _begun = b"OK"

    def __init__(
        self, url_or_client: Any, *, prefix: str | bytes = "", heartbeat: float = 1.0
    ) -> None:
        super().__init__(url_or_client, heartbeat)
        self._prefix = encoded(prefix, "prefix")
        which = ("PREFIX", self._prefix) if self._prefix else ()
        self._command = ("CLIENT", "TRACKING", "ON", "BCAST", *which)

    def _push(self, run: Run, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # FLUSHALL, FLUSHDB
            run.forget_all()
        else:
            start = len(self._prefix)
            run.forget([key[start:] for key in message[1]])


class _Published(Listener):
    """A source of what its own kind sends; what this object sent is not told to its sink."""

    def __init__(self, url_or_client: Any, heartbeat: float) -> None:
        super().__init__(url_or_client, heartbeat)
        self._origin = os.urandom(12)

    def _forked(self) -> None:
        self._origin = os.urandom(12)  # parent and child are two
        super()._forked()


class PubSub(_Published, _Pushes):
    """What is published on a channel.

    Args:
        url_or_client: where, as a URL of redis-py's, or a `redis.Redis`, maybe of a Sentinel's.
        channel: its name, as str or bytes.
        heartbeat: seconds between signs of life, and for each to come (see `Listener`).

    A message is one wire key as it is (`PUBLISH channel key`, by anybody), or empty: anything may
    have changed. One that begins with the bytes 00 "cc1" holds, after them, in msgpack, the
    array [origin, keys]: bytes that tell senders apart, and an array of keys as bytes, or nil for
    everything.
    """

    _begun = b"subscribe"

    def __init__(self, url_or_client: Any, channel: str | bytes, *, heartbeat: float = 1.0) -> None:
        super().__init__(url_or_client, heartbeat)
        self._channel = _name(channel, "channel")
        self._command = ("SUBSCRIBE", self._channel)

    def publish(self, keys: Iterable[bytes]) -> None:
        """Tell all the others that these wire keys have changed; TierError if that failed."""
        for batch in _batches(keys):
            self._send(batch)

    def publish_all(self) -> None:
        """Tell all the others that anything may have changed; TierError if that failed."""
        self._send(None)

    def _send(self, keys: list[bytes] | None) -> None:
        body = msgspec.msgpack.encode([self._origin, keys])
        self._execute("PUBLISH", self._channel, FRAME + body)

    def _push(self, run: Run, message: list[Any]) -> None:
        if message[0] != b"message":
            return
        data: bytes = message[2]
        origin, keys = None, [data] if data else None
        if data.startswith(FRAME):
            try:
                origin, keys = _FRAMED.decode(data[len(FRAME) :])
            except msgspec.DecodeError as error:
                run.mistake(error)
                keys = None
        if origin == self._origin:
            return
        if keys is None:
            run.forget_all()
        else:
            run.forget(keys)


class Streams(_Published):
    """What is appended to a stream, also while nobody listened.

    Args:
        url_or_client: where, as a URL of redis-py's, or a `redis.Redis`, maybe of a Sentinel's.
        stream: its key, as str or bytes.
        last_id: the entry after which to begin, such as a `position` that was saved with what
            the sink keeps; "$": with what comes, and the sink forgets everything at first.
        key_of: what an entry says: a function of its fields, a dict of bytes, to the wire key or
            keys that changed, as bytes or str, to EVERYTHING, or to None, if it says nothing.
            `cachecore.tiers.changes.debezium` makes one. Without it, entries are those of
            `append`.
        maxlen: how many entries `append` leaves, about; those who are away for longer forget all.
        heartbeat: seconds between signs of life, and for each to come (see `Listener`).

    An entry has a field "key" for each wire key (`XADD stream * key user:1`, by anybody); one
    without says that anything may have changed. A field "origin" tells senders apart. After a loss
    the sink is told what was missed before it is told `trust`. Where entries that were not read
    yet may have been trimmed or deleted, or the stream was lost, it forgets everything.
    """

    def __init__(
        self,
        url_or_client: Any,
        stream: str | bytes,
        *,
        last_id: str | bytes = "$",
        key_of: Callable[[dict[bytes, bytes]], Keys] | None = None,
        maxlen: int = 100_000,
        heartbeat: float = 1.0,
    ) -> None:
        super().__init__(url_or_client, heartbeat)
        self._stream = _name(stream, "stream")
        self._at = _entry_id(last_id)
        if key_of is not None and not callable(key_of):
            raise TypeError(f"key_of must be callable, not {type(key_of).__name__}")
        self._key_of = key_of
        self._maxlen = positive_int(maxlen, "maxlen")

    @property
    def position(self) -> str | None:
        """The id of the last entry that the sink was told of; None: not connected yet."""
        return None if self._at is None else _text(self._at)

    def append(self, keys: Iterable[bytes]) -> None:
        """Tell all the others that these wire keys have changed; TierError if that failed."""
        for batch in _batches(keys):
            self._add(*(word for key in batch for word in (b"key", key)))

    def append_all(self) -> None:
        """Tell all the others that anything may have changed; TierError if that failed."""
        self._add(b"all", b"")

    def _add(self, *fields: bytes) -> None:
        trim = ("MAXLEN", "~", self._maxlen)
        self._execute("XADD", self._stream, *trim, "*", b"origin", self._origin, *fields)

    def _serve(self, run: Run, wire: Wire) -> NoReturn:
        if self._at is None:
            wire.send(("XINFO", "STREAM", self._stream))
            info = _info(wire, monotonic() + self.heartbeat)
            self._at = _last(info) if info else NOWHERE
            run.forget_all()
        while self._turn(run, wire, self._at, block=False) == TURN:
            pass
        run.trust()
        whole = monotonic()  # when everything had been read
        while True:
            if self._turn(run, wire, self._at, block=True) < TURN:
                whole = monotonic()
            elif monotonic() - whole > 2 * self.heartbeat:
                raise TimeoutError("entries come faster than they are read")

    def _turn(self, run: Run, wire: Wire, since: tuple[int, int], *, block: bool) -> int:
        """Read on, and tell the sink; how many entries there were.

        The server answers in half a `heartbeat`, and as late as its clock ticks, whether there
        are entries or not: that is the sign of life.
        """
        wait = ("BLOCK", int(self.heartbeat * 500)) if block else ()
        read = ("XREAD", "COUNT", TURN, *wait, "STREAMS", self._stream, _text(since))
        wire.send(read, ("XINFO", "STREAM", self._stream))
        until = monotonic() + self.heartbeat * (2 if block else 1)
        answer = wire.answer(until)
        entries = next(iter(answer.values())) if answer else []
        info = _info(wire, until)
        self._counts["received"] += len(entries)
        if _has_gap(since, info):
            run.forget_all()
        else:
            self._tell(run, [entry[1] for entry in entries])
        if entries:
            self._at = _entry_id(entries[-1][0])
        elif info is None or _last(info) < since:
            self._at = NOWHERE if info is None else _last(info)
        return len(entries)

    def _tell(self, run: Run, entries: list[list[bytes]]) -> None:
        changed: list[bytes] = []
        for fields in entries:
            try:
                keys = self._keys(fields)
            except Exception as error:  # somebody's function, or somebody's entry
                run.mistake(error)
                keys = EVERYTHING
            if keys is EVERYTHING:
                return run.forget_all()
            changed += keys
        return run.forget(changed)

    def _keys(self, fields: list[bytes]) -> list[bytes] | Everything:
        """What an entry says."""
        pairs = list(zip(fields[::2], fields[1::2], strict=True))
        if self._key_of is not None:
            keys = self._key_of(dict(pairs))
            if isinstance(keys, Everything):
                return keys
            several = [] if keys is None else [keys] if isinstance(keys, str | bytes) else keys
            return [encoded(key, "a key") for key in several]
        if (b"origin", self._origin) in pairs:
            return []
        return [value for name, value in pairs if name == b"key"] or EVERYTHING


def _name(text: Any, name: str) -> bytes:
    """A channel's or a stream's name."""
    if not (found := encoded(text, name)):
        raise ValueError(f"{name} must not be empty")
    return found


def _batches(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Wire keys, checked all before the first batch goes out."""
    every = list(sequence_of(keys))
    if strange := [type(key).__name__ for key in every if not isinstance(key, bytes)]:
        raise TypeError(f"keys must be bytes, as they are in the tier, not {strange[0]}")
    for at in range(0, len(every), BATCH):
        yield every[at : at + BATCH]


def _entry_id(text: str | bytes) -> tuple[int, int] | None:
    """The two numbers of an entry's id, which is "milliseconds-number"; None for "$"."""
    milliseconds, _, number = encoded(text, "last_id").partition(b"-")
    if milliseconds == b"$" and not number:
        return None
    try:
        return int(milliseconds), int(number or b"0")
    except ValueError:
        raise ValueError(
            f'last_id must be "$" or such as "1700000000000-0", not {text!r}'
        ) from None


def _text(at: tuple[int, int]) -> str:
    return f"{at[0]}-{at[1]}"


def _info(wire: Wire, until: float) -> dict[bytes, Any] | None:
    """The answer to XINFO STREAM; None where there is no stream."""
    try:
        info: dict[bytes, Any] = wire.answer(until)
    except ReplyError as error:
        if "no such key" in str(error):
            return None
        raise
    return info


def _last(info: dict[bytes, Any]) -> tuple[int, int]:
    """The id given last."""
    return _entry_id(info[b"last-generated-id"]) or NOWHERE


def _has_gap(since: tuple[int, int], info: dict[bytes, Any] | None) -> bool:
    """Whether entries that came after `since` may have gone before they could be read.

    Entries go from the front. So what is asked after reading settles it: if the front was not
    beyond `since` by then, nothing was missing.
    """
    if info is None:  # deleted, or lost with the server
        return since != NOWHERE
    last = _last(info)
    if last <= since:
        return last < since  # it is another stream, or the copy of a replica that lagged
    if (_entry_id(info.get(b"max-deleted-entry-id", b"0")) or NOWHERE) > since:
        return True  # by XDEL
    if since == NOWHERE and info.get(b"entries-added") == info[b"length"]:
        return False
    first = info[b"first-entry"]
    return first is None or (_entry_id(first[0]) or NOWHERE) > since
