"""Fingerprints of computations: 32 bytes that stand for a model, its settings and its inputs."""

from __future__ import annotations

from cachecore._fingerprint import encode
from cachecore.ml.versions import check_digest, check_version


def fingerprint(
    *inputs: object,
    model: str,
    version: str | int,
    params: object = None,
    domain: str = "",
    digest: str = "sha3_256",
    salt: bytes | str = b"",
) -> bytes:
    """Return 32 bytes that stand for a computation: equal ones share them, others do not.

    All parts go into one digest, each with its type and length, so that no two different lists of
    arguments are the same bytes: ("ab", "c") is not ("a", "bc"), and 1, 1.0, True, "1" and b"1" are
    five values. The name of the digest is one of the parts.

    Args:
        inputs: What the model is called with; any number of the values below.
        model: The name of the model, not empty.
        version: Says which weights and code: text, such as `model_version` makes, or an int.
        params: What else the result depends on, usually a dict such as {"temperature": 0.0}.
            None and {} are two things.
        domain: Keeps apart uses of one model, such as "query" and "document".
        digest: "sha3_256", "blake2b" (of 32 bytes), or "blake3", which needs the extra `ml`.
        salt: A tenant, say, chosen by the server: others cannot meet its fingerprints. It is hashed
            like any part, not keyed: who knows it can compute the fingerprints.

    Values, and what counts for them:
        str: Its characters; lone surrogates too. Not normalised: "\u00e9" is not "e\u0301".
        bytes, bytearray, memoryview of plain bytes: The bytes; all three are equal.
        int: Of any size. bool is no int.
        float: Its bits: -0.0 is not 0.0, every NaN is the same one, infinities are values.
        None, list, tuple: A list is not a tuple.
        dict, set, frozenset: In any order; a set equals a frozenset.
        NumPy arrays, memmaps and scalars: dtype, shape and items; not byte order, strides, or gaps
            between fields. A scalar equals an array of shape (), but np.str_ and np.bytes_ equal
            str and bytes. The bits of floats count as they are: two NaNs may differ, which
            costs a miss, never a wrong hit.
        torch tensors: The same; bfloat16 and the like included; not the device or requires_grad. A
            tensor is not an array, a Parameter is a tensor.
        dataclasses: The module and name of the type, and names and values of all fields.
        members of an Enum: The module and name of the type, name and value.

    Nothing is converted by `repr`, `hash` or pickle. Time is the digest's and some 0.6 us; what is
    at least 8 KB large is hashed where it lies. What is not contiguous or native is copied first.

    Raises:
        TypeError: A value is none of these, or of a subclass: an OrderedDict, a namedtuple, a
            masked array, an array of objects or long doubles. The error says where it is, such as
            inputs[0]['user'][3].
        ValueError: A container holds itself, or is one of more than 200 in one another; two keys of
            a dict are NaN; `digest` is unknown; `model` or `version` is empty.
        RuntimeError: A list has changed its length meanwhile.
        ImportError: blake3 is not installed.

    Warns:
        UserWarning: The version does not identify the weights; see `check_version`.

    Thread safety: any thread. A large array is hashed without the GIL; nobody may write to it then.
    """
    return encode(_check, False, digest, salt, domain, model, version, params, inputs)


def _check(digest: object, salt: object, domain: object, model: object, version: object) -> None:
    """Refuse what is not an immutable text, number or bytes."""
    check_digest(digest)
    if type(model) is not str:
        raise TypeError(f"model must be a str, not {type(model).__name__}")
    if not model:
        raise ValueError("model must not be empty")
    if type(domain) is not str:
        raise TypeError(f"domain must be a str, not {type(domain).__name__}")
    if type(salt) is not bytes and type(salt) is not str:
        raise TypeError(f"salt must be bytes or a str, not {type(salt).__name__}")
    check_version(version, stacklevel=4)
