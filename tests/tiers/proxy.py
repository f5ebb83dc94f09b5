"""A TCP proxy that misbehaves on demand, between a real client and a real server.

    with Proxy(server.port) as proxy:
        tier = RedisTier(f"redis://127.0.0.1:{proxy.port}")
        proxy.dribble(0.02)

A mode holds for connections that are open and for new ones, until the next. Bytes "of reply" are
counted per connection from the moment the mode was set.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import NamedTuple, Self

CHUNK = 65536
LINGER_0 = struct.pack("ii", 1, 0)  # close() sends RST


class _Mode(NamedTuple):
    """What is done to what the server says, and (held) to what the client says."""

    held: bool = False
    most: int | None = None  # bytes of reply until the connection ends
    reset: bool = False  # it ends by RST, not by FIN
    step: int = CHUNK  # bytes at a time
    pause: float = 0.0  # seconds before each of them


class Proxy:
    """Listens on 127.0.0.1:`port`, which stays the same, and connects to `target` for each."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode = _Mode()
        self._changed = threading.Condition()
        self._closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.accepted = 0
        """Connections accepted so far."""
        self._listen()

    # --- modes

    def pass_on(self) -> None:
        """Be a good proxy; what was stalled goes on."""
        self._set(_Mode())

    def refuse(self) -> None:
        """Close the port, and reset what is open."""
        self._set(_Mode(most=0, reset=True))
        self._close_listener()

    def stall(self) -> None:
        """Accept, and pass nothing on in either direction until the mode changes."""
        self._set(_Mode(held=True))

    def reset(self, after: int = 0) -> None:
        """RST after so many bytes of reply; 0: at once."""
        self._set(_Mode(most=after, reset=True))

    def cut(self, after: int = 0) -> None:
        """FIN after so many bytes of reply; 0: at once."""
        self._set(_Mode(most=after))

    def dribble(self, interval: float) -> None:
        """One byte of reply every `interval` seconds."""
        self._set(_Mode(step=1, pause=interval))

    def delay(self, seconds: float) -> None:
        """Wait before each piece of reply."""
        self._set(_Mode(pause=seconds))

    def _set(self, mode: _Mode) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()
            pairs = [*self._pairs]
        if mode.most == 0:
            for pair in pairs:
                self._end(pair, mode.reset)
        if self._listener is None and not self._closed:
            self._listen()

    # --- connections

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() does not
            listener.close()

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:  # the server is away: so are we
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                client.close()
                continue
            for each in (client, server):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self._changed:
                self._pairs.add(pair)
                mode = self._mode
            if mode.most == 0 or self._closed:
                self._end(pair, mode.reset)
                continue
            self._start(self._requests, pair)
            self._start(self._replies, pair)

    def _current(self) -> _Mode:
        """The mode, once it lets bytes through."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._mode.held)
            return self._mode

    def _pause(self, mode: _Mode) -> None:
        """Wait as the mode says, as long as it is the mode."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._mode is not mode, mode.pause)

    def _requests(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        try:
            while data := client.recv(CHUNK):
                self._current()
                server.sendall(data)
        except OSError:
            pass
        self._end(pair, reset=False)

    def _replies(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        seen, sent, reset = self._mode, 0, False
        try:
            while data := server.recv(CHUNK):
                while data:
                    mode = self._current()
                    if mode is not seen:
                        seen, sent = mode, 0
                    if mode.pause:
                        self._pause(mode)
                    left = len(data) if mode.most is None else mode.most - sent
                    piece = data[: min(mode.step, left)]
                    client.sendall(piece)
                    data, sent = data[len(piece) :], sent + len(piece)
                    if sent == mode.most:
                        reset = mode.reset
                        return
        except OSError:
            pass
        finally:
            self._end(pair, reset)

    def _end(self, pair: tuple[socket.socket, socket.socket], reset: bool) -> None:
        """Close both sides; the first who asks says how."""
        with self._changed:
            if pair not in self._pairs:
                return
            self._pairs.remove(pair)
        client, server = pair
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        for each in (server, client):
            # Another thread's recv() keeps a connection open beyond close(): wake it first; on the
            # side that is to be reset without the FIN that would come before the RST.
            how = socket.SHUT_RD if reset and each is client else socket.SHUT_RDWR
            with contextlib.suppress(OSError):
                each.shutdown(how)
            each.close()

    def close(self) -> None:
        """End everything."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._close_listener()
        for pair in [*self._pairs]:
            self._end(pair, reset=False)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
