"""The users of a server: a file of them, their passwords and what they may do.

The file has a line for each user, in the words of Redis' own ACL files:

    user default on #<64 hex digits: SHA-256 of the password> ~* &* +@all
    user grafana on #<...> ~* +@read
    user feeder on #<...> ~* +@read +@write

Empty lines and those that begin with # are left out. `off` users cannot come in; `nopass` ones with
any password. Rights are `+@all`, `+@read`, `+@write`, `+@admin` and the same with `-`, in their
order; PING and the like are free to every user. Keys cannot be narrowed: `~*` may be said, nothing
else. Passwords are given by `#hash`; `>password` in clear is read too.

SHA-256 is fast: whoever reads the file can try billions of short passwords. Redis has the same
format, a slow hash would stop all other clients while it runs, and so the file must be its owner's
alone, and its passwords long random text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import NamedTuple

from cachecore._resp_client import MAY_ADMINISTER, MAY_ALL, MAY_CONNECT, MAY_READ, MAY_WRITE
from cachecore.server.settings import SettingsError
from cachecore.server.sources import read_secret

RIGHTS = {"all": MAY_ALL, "read": MAY_READ, "write": MAY_WRITE, "admin": MAY_ADMINISTER}
FREE = {"~*", "allkeys", "&*", "allchannels", "sanitize-payload", "+@connection"}  # say nothing new
_HASH = re.compile(r"#([0-9a-f]{64})")
_RULE = re.compile(r"([+-])@(all|read|write|admin)")
_WORDS = {"allcommands": "+@all", "nocommands": "-@all"}


class User(NamedTuple):
    """Who may come in, and what for."""

    name: str
    on: bool = False
    nopass: bool = False
    digests: tuple[bytes, ...] = ()
    """SHA-256 of each of the passwords."""
    may: int = MAY_CONNECT

    def has(self, digest: bytes) -> bool:
        """Whether it is that of a password of the user's; takes as long if it is none."""
        found = [hmac.compare_digest(digest, known) for known in self.digests]
        return self.nopass or any(found)

    def rules(self) -> list[str]:
        """Its rights as rules."""
        if self.may == MAY_ALL:
            return ["+@all"]
        named = [f"+@{name}" for name, may in RIGHTS.items() if may != MAY_ALL and self.may & may]
        return ["-@all", *named, "+@connection"]

    def line(self) -> str:
        """As in a file of users."""
        words = ["user", self.name, "on" if self.on else "off", *["nopass"] * self.nopass]
        words += [f"#{digest.hex()}" for digest in self.digests]
        return " ".join([*words, "~*", "&*", *self.rules()])


NOBODY = User("", digests=(bytes(32),))  # what the password of an unknown user is compared with


def digest_of(password: bytes) -> bytes:
    """What is kept of a password."""
    return hashlib.sha256(password).digest()


def read_users(path: Path) -> dict[bytes, User]:
    """The users of a file that only its owner can read.

    Raises:
        SettingsError: it cannot be read, or a line is wrong; the message says which.
    """
    users: dict[bytes, User] = {}
    for number, line in enumerate(read_secret(path, "users_file").split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            user = parse_user(line.split())
            if user.name.encode() in users:
                raise ValueError(f"the user {user.name!r} comes twice")
        except ValueError as error:
            raise SettingsError(f"users_file: {path}:{number}: {error}") from None
        users[user.name.encode()] = user
    return users


def parse_user(words: list[str]) -> User:
    """A user of the words of a line; ValueError says which of them is wrong."""
    if words[0] != "user" or len(words) < 2:
        raise ValueError("a line must begin with `user NAME`")
    user = User(words[1])
    for word in words[2:]:
        user = _with(user, _WORDS.get(word, word))
    return user


def _with(user: User, word: str) -> User:
    if word in FREE:
        return user
    if word in ("on", "off"):
        return user._replace(on=word == "on")
    if word == "nopass":
        return user._replace(nopass=True, digests=())
    if (match := _HASH.fullmatch(word)) or (word[0] == ">" and len(word) > 1):
        digest = bytes.fromhex(match[1]) if match else digest_of(word[1:].encode())
        return user._replace(nopass=False, digests=(*user.digests, digest))
    if match := _RULE.fullmatch(word):
        may = RIGHTS[match[2]]
        return user._replace(may=(user.may | may if match[1] == "+" else user.may & ~may)
                             | MAY_CONNECT)  # fmt: skip
    shown = word if word[0] not in ">#<!" else word[0] + "..."  # it may be a password
    raise ValueError(
        f"{shown!r} is not known here; known are on, off, nopass, #sha256, >password, ~*, &*, and"
        " + or - with @all, @read, @write, @admin"
    )
