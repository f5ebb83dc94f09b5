"""Codecs: how the values of a tiered cache become bytes and come back.

`codec=` of a TieredCache is None for the default codec, one of the names "raw", "array", "msgpack"
and "pickle", or a codec object: `Pickle(secret=...)`, or one of a subclass of `Codec`.
"""

from __future__ import annotations

import hmac
import pickle
from typing import Any

from cachecore._payload import ArrayCodec, Codec, DefaultCodec, MsgpackCodec

__all__ = [
    "ArrayCodec",
    "Codec",
    "DefaultCodec",
    "MsgpackCodec",
    "Pickle",
    "Raw",
    "codec_of",
]

LEAST_SECRET = 16  # bytes


class Raw(Codec):
    """Bytes as they are, without an envelope: what is shared with other programs."""

    name = "raw"
    enveloped = False

    def encode(self, value: Any) -> bytes:
        if type(value) is not bytes:
            raise TypeError(f'value must be bytes for codec "raw", not {type(value).__name__}')
        return value

    def decode(self, data: bytes | memoryview) -> bytes:
        return bytes(data)


class Pickle(Codec):
    """Whatever pickle can write. Reading a pickle can execute anything its writer wants.

    So without a secret it is for tiers to which nobody else can write. With one, at least 16 bytes
    which all who share a tier know, every envelope is signed (HMAC-SHA256 of the namespace, key,
    codec, times, generation, tags and pickle), and unpickled only if the signature is right. Who
    can write to the tier can still put an older envelope of the same key back.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self.name = "pickle"
        self.private = secret is None
        if secret is None:
            return
        if not isinstance(secret, bytes):
            raise TypeError(f"secret must be bytes, not {type(secret).__name__}")
        if len(secret) < LEAST_SECRET:
            raise ValueError(f"secret must have at least {LEAST_SECRET} bytes, not {len(secret)}")
        self.name = "signed pickle"
        self.signs = True
        self._mac = hmac.new(secret, digestmod="sha256")

    def encode(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, protocol=5)
        except (AttributeError, pickle.PicklingError) as error:
            raise TypeError(f"value cannot be pickled: {error}") from error

    def decode(self, data: bytes | memoryview) -> Any:
        return pickle.loads(data)

    def sign(self, namespace: bytes, *parts: bytes | memoryview) -> bytes:
        mac = self._mac.copy()
        mac.update(len(namespace).to_bytes(8, "little") + namespace)
        for part in parts:
            mac.update(part)
        return mac.digest()


_BY_NAME: dict[str, type[Codec]] = {
    "raw": Raw,
    "array": ArrayCodec,
    "msgpack": MsgpackCodec,
    "pickle": Pickle,
}


def codec_of(codec: Any) -> Codec:
    """The codec that a `codec=` argument means; TypeError or ValueError when it means none."""
    if codec is None:
        return DefaultCodec()
    if isinstance(codec, str):
        if codec not in _BY_NAME:
            names = ", ".join(f'"{name}"' for name in _BY_NAME)
            raise ValueError(f"codec must be one of {names} or a Codec, not {codec!r}")
        return _BY_NAME[codec]()
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be None, a name or a Codec, not {type(codec).__name__}")
    if not isinstance(codec.name, str) or not codec.name:
        raise TypeError(f"codec must have a str as its name, not {codec.name!r}")
    return codec
