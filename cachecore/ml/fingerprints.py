"""Fingerprints of computations: 32 bytes that stand for a model, its settings and its inputs."""

from __future__ import annotations

from cachecore._fingerprint import encode
from cachecore.ml.versions import check_version, is_known


def fingerprint(
    *inputs: object,
    model: str,
    version: str | int,
    params: object = None,
    domain: str = "",
    digest: str = "sha3_256",
    salt: bytes | str = b"",
) -> bytes:
    """Return a digest of a computation."""
    if not is_known(version):
        check_version(version, stacklevel=3)
    _check_names(model, domain, salt)
    return encode(False, digest, salt, domain, model, version, params, inputs)


def _encoded(
    *inputs: object,
    model: str,
    version: str | int,
    params: object = None,
    domain: str = "",
    digest: str = "sha3_256",
    salt: bytes | str = b"",
) -> bytes:
    """Return the bytes that `fingerprint` takes the digest of."""
    return encode(True, digest, salt, domain, model, version, params, inputs)


def _check_names(model: object, domain: object, salt: object) -> None:
    if type(model) is not str or not model:
        raise TypeError(f"model must be a str that names the model, not {model!r:.80}")
    if type(domain) is not str:
        raise TypeError(f"domain must be a str, not {type(domain).__name__}")
    if type(salt) is not bytes and type(salt) is not str:
        raise TypeError(f"salt must be bytes or a str, not {type(salt).__name__}")
