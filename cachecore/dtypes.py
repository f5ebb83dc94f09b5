"""NumPy's dtypes as text that says exactly what they are, and back. Reading it executes nothing.

It is JSON, of one of these:

    "<f4"  "|S3"  "<M8[ns]"        as NumPy writes plain types
    "<f16/63"                      a long double, with the bits of its mantissa: machines differ
    "bfloat16"                     a type of ml_dtypes
    ["<f4", [2, 3]]                a field whose items have a shape of their own
    {"names": [...], "formats": [...], "offsets": [...], "itemsize": 8, "aligned": false}
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

_PLAIN = re.compile(r"[<>|][?biufcmMSUV]\d{1,10}(\[\w+(/\d+)?\])?")
_NAME = re.compile(r"[a-z]\w*")
_USERS = 256  # the least number of a type that is not NumPy's own
_MANTISSA = f"/{np.finfo(np.longdouble).nmant}"


def text_of(dtype: np.dtype[Any]) -> str | None:
    """A dtype as text; None when it holds objects or cannot be described. Metadata is left out."""
    try:
        text = json.dumps(_form(dtype), separators=(",", ":"))
        return text if dtype_of(text) == dtype else None
    except (ValueError, ImportError):
        return None


def dtype_of(text: str) -> np.dtype[Any]:
    """The dtype of a text. ValueError when there is none; ImportError when it needs ml_dtypes."""
    try:
        dtype = _read(json.loads(text))
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"no dtype is described by {text!r:.80}: {error}") from None
    if dtype.hasobject or dtype.subdtype is not None:
        raise ValueError(f"no array to be read is of dtype {text!r:.80}")
    return dtype


def _is_long(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)


def _form(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_form(base), list(shape)]
    if dtype.names is not None:
        if dtype.type is not np.void:  # a record, whose items are of another type
            raise ValueError("not a plain structure")
        fields = [dtype.fields[name] for name in dtype.names] if dtype.fields else []
        return {
            "names": list(dtype.names),
            "formats": [_form(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if dtype.num >= _USERS:
        return dtype.name
    return dtype.str + _MANTISSA if _is_long(dtype) else dtype.str


def _read(form: Any) -> np.dtype[Any]:
    spec: Any
    if isinstance(form, list):
        base, shape = form
        spec = (_read(base), tuple(shape))
    elif isinstance(form, dict):
        spec = {part: form[part] for part in ("names", "offsets", "itemsize", "aligned")}
        spec["formats"] = [_read(each) for each in form["formats"]]
    elif _NAME.fullmatch(form):
        return _of_ml_dtypes(form)
    else:
        spec = form.removesuffix(_MANTISSA)
        if not _PLAIN.fullmatch(spec):
            raise ValueError("an unknown type")
    dtype: np.dtype[Any] = np.dtype(spec)
    if isinstance(form, str) and form.endswith(_MANTISSA) is not _is_long(dtype):
        raise ValueError("a long double of another machine")
    return dtype


def _of_ml_dtypes(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"arrays of {name} need a package: pip install ml_dtypes") from None
    kind = getattr(ml_dtypes, name, None)
    if not isinstance(kind, type) or not issubclass(kind, np.generic):
        raise ValueError(f"ml_dtypes has no type {name}")
    return np.dtype(kind)
