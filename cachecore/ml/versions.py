"""Versions of models: a digest of the weights, and a warning about what does not identify them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cachecore._fingerprint import encode, new_digest

_MOST_TEXTS = 1_024
_MOST_FILES = 65_536
_ATTEMPTS = 3
_SETTLED = 2_000_000_000  # ns; the coarsest clock that file systems take times from
_MOVING = {"latest", "main", "master", "current", "head", "newest", "nightly"}
_TIME = re.compile(
    r"1\d{9}(\d{3}){0,3}(\.\d*)?"  # Unix seconds, ms, us or ns since 2001
    r"|(19|20)\d\d(?P<sep>[-/._]?)(0[1-9]|1[0-2])(?P=sep)(0[1-9]|[12]\d|3[01])"  # a date
    r"([T _-]?([01]\d|2[0-3]):?[0-5]\d(:?[0-5]\d([.,]\d+)?)?)?( ?(Z|[+-]\d\d:?\d\d))?"
    r"|.*\b\d?\d:[0-5]\d:[0-5]\d\b.*"  # a time of day in any text
)
_warned: set[str] = set()


def check_digest(digest: object) -> None:
    """Raise ValueError unless this is the name of a digest."""
    if type(digest) is not str or digest not in ("sha3_256", "blake2b", "blake3"):
        raise ValueError(f'digest must be "sha3_256", "blake2b" or "blake3", not {digest!r:.80}')


def version_text(version: str | int) -> str:
    """A version as text; of a very long int, which `str` may refuse, in hexadecimal digits."""
    if isinstance(version, int) and not 0 <= version < 10**20:
        return hex(version)
    return str(version)


def check_version(version: object, *, stacklevel: int = 2) -> None:
    """Raise unless this can be a model's version; warn if it says when instead of what.

    Args:
        version: Text or an int.
        stacklevel: Whom the warning is about, as in `warnings.warn`: 2 is the caller.

    Raises:
        TypeError: It is neither a str nor an int.
        ValueError: It is empty.

    Warns:
        UserWarning: Once for each text that looks like a time ("2026-01-31", 1767225600) or moves
            ("latest", "main"): results of two models would be taken for one another's.
    """
    if type(version) is not str and type(version) is not int:
        raise TypeError(f"version must be a str or an int, not {type(version).__name__}")
    text = version_text(version)
    plain = text.strip()
    if not plain:
        raise ValueError("version must not be empty")
    if plain.casefold() in _MOVING:
        what = "moves from model to model"
    elif len(plain) <= 64 and _TIME.fullmatch(plain):
        what = "looks like a time, which does not say what the weights are"
    else:
        return
    if text not in _warned:
        warnings.warn(
            f"version {text!r:.80} {what}; model_version(path) gives one that does",
            UserWarning,
            stacklevel=stacklevel,
        )
        if len(_warned) >= _MOST_TEXTS:
            _warned.clear()
        _warned.add(text)  # not when the warning was made an error


def model_version(
    path_or_state: str | os.PathLike[str] | Mapping[str, Any], *, digest: str = "sha3_256"
) -> str:
    """Return a model's version: 32 hexadecimal digits, 128 bits of a digest of its weights.

    Args:
        path_or_state: A file; or a directory, of which all files count with their names, in sorted
            order and those of subdirectories too, except names that begin with a dot; or a state
            dict of names to arrays, tensors and whatever else `fingerprint` takes.
        digest: "sha3_256", "blake2b", or "blake3", which needs the extra `ml`.

    A file's own name does not count, nor do times and owners. What was read is remembered by path,
    size, mtime, ctime, inode and device, unless it was written in the last two seconds: a later
    write might leave all of these as they are. A file of a state dict and the dict itself have
    different versions, and so have the same numbers as arrays and as tensors.

    Raises:
        OSError: A file cannot be read; FileNotFoundError if it is not there.
        RuntimeError: Files changed while they were read, three times in a row.
        TypeError: Neither a path nor a mapping; or a value of it that has no fingerprint.
        ValueError: There are no weights; the path is empty; a directory holds a link to a
            directory; a name leads to something else than a file or a directory; the digest is
            unknown.

    Thread safety: any thread. Files of which two threads ask at once may be read twice.
    """
    check_digest(digest)
    if isinstance(path_or_state, Mapping):
        return _state_version(path_or_state, digest)
    try:
        path = os.fspath(path_or_state)
    except TypeError:
        kind = type(path_or_state).__name__
        raise TypeError(
            f"path_or_state must be a path or a mapping of names to arrays, not {kind}"
        ) from None
    if not path:  # os.path.abspath would take it for the working directory
        raise ValueError("path_or_state must not be empty")
    return _digests.version(os.path.abspath(os.fsdecode(path)), digest)


def _short(kind: str, content: object, digest: str) -> str:
    parts = (digest, b"", "cachecore.ml.model_version", kind, 1, None, (content,))
    return encode(_unchecked, False, *parts).hex()[:32]


def _unchecked(*_: object) -> None:
    """The digest's name has been checked; the other parts are our own."""


def _state_version(state: Mapping[str, Any], digest: str) -> str:
    weights = dict(state)
    if not weights:
        raise ValueError("path_or_state must hold weights: the mapping is empty")
    for name in weights:
        if type(name) is not str:
            raise TypeError(f"path_or_state must map names to arrays; {name!r:.80} is no str")
    return _short("state", weights, digest)


class _Seen(NamedTuple):
    """A file, and what tells whether it is still as it was."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class _FileDigests:
    """Digests of files, remembered for as long as the files are what they were.

    `clock` returns Unix nanoseconds. `reads` counts the files that were read.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._known: dict[tuple[str, _Seen], bytes | None] = {}
        self.reads = 0

    def version(self, path: str, digest: str) -> str:
        for _ in range(_ATTEMPTS):
            begun = self._clock()
            found = _files(path)
            digests = {name: self._known.get((digest, seen)) for name, seen in found.items()}
            unread = [name for name, known in digests.items() if known is None]
            for name in unread:
                digests[name] = self._read(found[name], digest)
            if not unread or (None not in digests.values() and _files(path) == found):
                break
        else:
            raise RuntimeError(f"{path} changed while it was read, {_ATTEMPTS} times in a row")
        for name in unread:
            if found[name].ctime_ns + _SETTLED <= begun:
                if len(self._known) >= _MOST_FILES:
                    self._known.clear()
                self._known[digest, found[name]] = digests[name]
        if "" in found:
            return _short("file", digests[""], digest)
        return _short("directory", digests, digest)

    def _read(self, seen: _Seen, digest: str) -> bytes | None:
        """The digest of a file's content; None if it is not the file any more."""
        self.reads += 1
        with open(seen.path, "rb", buffering=0, opener=_open_at_once) as file:
            if _seen(seen.path, os.fstat(file.fileno())) != seen:
                return None
            read: bytes = hashlib.file_digest(file, lambda: new_digest(digest, b"")).digest()
            return read


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe in place of a file blocks nobody


def _seen(path: str, status: os.stat_result) -> _Seen:
    size, mtime, ctime = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return _Seen(path, size, mtime, ctime, status.st_ino, status.st_dev)


def _files(path: str) -> dict[str, _Seen]:
    """The files below a directory, by their names in it; or a file under the name ""."""
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return {"": _regular(path, status)}
    found = {}
    for folder, folders, names in os.walk(path, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise ValueError(f"{os.path.join(folder, name)} is a link to a directory")
        for name in names:
            if not name.startswith("."):
                file = os.path.join(folder, name)
                found[os.path.relpath(file, path)] = _regular(file, os.stat(file))
    if not found:
        raise ValueError(f"{path} holds no files")
    return found


def _raise(error: OSError) -> None:
    raise error


def _regular(path: str, status: os.stat_result) -> _Seen:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is neither a file nor a directory")
    return _seen(path, status)


_digests = _FileDigests()
