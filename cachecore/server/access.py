"""Who may come in: passwords, users, and how often somebody may guess.

Passwords are compared by their SHA-256, in a time that does not depend on them. Who guesses is
slowed down by address: after `GUESSES` different wrong passwords within `PERIOD` seconds those from
there are no longer looked at, right or wrong, until the first are forgotten. Repeating one wrong
password counts once, so that a client with an old password does not lock out its neighbours.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes
from time import monotonic

from cachecore._resp_client import MAY_ALL, Client
from cachecore._resp_values import ReplyError
from cachecore.server.addresses import address_of, place_of
from cachecore.server.users import NOBODY, User, digest_of, read_users
from cachecore.server.values import Secret

GUESSES = 20  # different wrong passwords from one place within
PERIOD = 60.0  # seconds
MOST_PLACES = 4096  # that are remembered

WRONG = "WRONGPASS invalid username-password pair or user is disabled."
NO_PASSWORD = (
    "ERR AUTH <password> called without any password configured for the default user."
    " Are you sure your configuration is correct?"
)
PROTECTED = (
    "DENIED cachecore is running in protected mode because no password is set for the default"
    " user. In this mode connections are only accepted from the loopback interface. If you want to"
    " connect from other machines, set a password (password, or users_file) or use TLS"
    " (tls_cert), and restart the server."
)


class Throttle:
    """How many different wrong passwords came from where of late.

    Args:
        timer: seconds that only grow.
    """

    def __init__(self, timer: Callable[[], float] = monotonic) -> None:
        self._timer = timer
        self._secret = token_bytes(32)  # what was tried is not kept in a form that could be tried
        self._places: dict[str, dict[bytes, float]] = {}

    def wait(self, place: str) -> float:
        """Seconds until a guess from there is looked at; 0: now."""
        guesses = self._places.get(place)
        if not guesses:
            return 0.0
        now = self._timer()
        for guess in [guess for guess, at in guesses.items() if at <= now - PERIOD]:
            del guesses[guess]
        if len(guesses) < GUESSES:
            return 0.0
        return min(guesses.values()) + PERIOD - now

    def failed(self, place: str, user: bytes, password: bytes) -> None:
        """Count a wrong password."""
        guesses = self._places.pop(place, {})
        self._places[place] = guesses  # the last one is forgotten last
        what = hmac.digest(self._secret, b"%d %b%b" % (len(user), user, password), "sha256")
        guesses.setdefault(what, self._timer())
        if len(self._places) > MOST_PLACES:
            del self._places[next(iter(self._places))]


class Access:
    """The users of a server. Belongs to its loop's thread.

    Args:
        password: that of the user `default`; goes before what a file says of it.
        users_file: a file as users.py describes it.
        encrypted: whether connections from elsewhere speak TLS.

    Raises:
        SettingsError: the file cannot be read, or is wrong.
    """

    def __init__(
        self,
        password: Secret | None = None,
        users_file: Path | None = None,
        *,
        encrypted: bool = False,
    ) -> None:
        self._password, self._file, self._encrypted = password, users_file, encrypted
        self.throttle = Throttle()
        self.denied = 0
        self.users: dict[bytes, User] = {}
        self.load()

    def load(self) -> bool:
        """Read the users anew, all or, if something is wrong, none; whether there is a file."""
        users = {} if self._file is None else read_users(self._file)
        default = users.setdefault(b"default", User("default", on=True, nopass=True, may=MAY_ALL))
        if self._password is not None:
            digest = digest_of(self._password.reveal().encode())
            users[b"default"] = default._replace(on=True, nopass=False, digests=(digest,))
        self.users = users
        return self._file is not None

    @property
    def default(self) -> User:
        """Who clients are that have not said who."""
        return self.users[b"default"]

    def greet(self, client: Client) -> None:
        """Make a new client the default user if that has no password, else nobody."""
        self.begin(client)
        if not client.may or self._encrypted:
            return
        address = address_of(client)
        if address is not None and not address.is_loopback:
            client.may = 0
            client.write(f"-{PROTECTED}\r\n".encode())
            client.close("protected")

    def begin(self, client: Client) -> None:
        """As it is for a new client."""
        default = self.default
        is_free = default.on and default.nopass
        client.user, client.may = (default, default.may) if is_free else (None, 0)

    def authenticate(self, client: Client, name: bytes, password: bytes) -> None:
        """Make the client the user, if the password is right.

        Raises:
            ReplyError: it is not, or too many wrong ones came from there.
        """
        place = place_of(address_of(client))
        wait = self.throttle.wait(place)
        if wait > 0:
            self.denied += 1
            raise ReplyError(f"ERR too many wrong passwords; try again in {wait:.0f} seconds")
        user = self.users.get(name, NOBODY)
        if not user.has(digest_of(password)) or not user.on:
            self.denied += 1
            self.throttle.failed(place, name, password)
            raise ReplyError(WRONG)
        client.user, client.may = user, user.may
