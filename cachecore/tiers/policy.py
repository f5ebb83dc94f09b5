"""Policy: how long values live, and what may be done with old ones; read from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from cachecore.settings import positive_int, price, seconds, share, size_in_bytes
from cachecore.tiers.base import Tier


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The lifetimes of a namespace's values, and its bounds in this process. Times in seconds.

    Raises:
        ValueError, TypeError: a field is out of range or of the wrong kind; it is named.
    """

    ttl: float | None = None
    """How long a value is good; None: for ever."""

    ttl_jitter: float = 0.0
    """Share of its lifetime, 0 ... 1, by which a value may expire earlier, at random."""

    negative_ttl: float | None = None
    """How long a key is remembered that has no value; None: it is not."""

    stale_while_revalidate: float = 0.0
    """How long after its expiry a value may be returned while it is loaded anew (RFC 5861)."""

    stale_if_error: float = 0.0
    """How long after its expiry a value may be returned when loading it anew has failed."""

    early_refresh: float = 0.0
    """How eagerly values are loaded anew before they expire, in the background: the beta of XFetch,
    with the time that loading took as its delta; 1 is the usual choice, 0: not before they expire.
    The moment is drawn when a value comes into this process, so that hits need not draw (Vattani et
    al., "Optimal Probabilistic Cache Stampede Prevention", 2015)."""

    retry: float = 1.0
    """How long the loader is left alone for a key after it has failed to refresh it."""

    load_timeout: float | None = None
    """How long loading may take; None: as long as it takes. Then TimeoutError, or a stale value."""

    lease: float | None = None
    """How long the other processes leave it to one of them to load a key, by a lease that the last
    tier keeps; None: every process loads for itself."""

    maxsize: int | None = None
    """Most entries in this process."""

    max_bytes: int | str | None = None
    """Most bytes in this process."""

    codec: Any = None
    """How values become bytes: see `cachecore.codecs`."""

    def __post_init__(self) -> None:
        for name in ("ttl", "negative_ttl", "load_timeout", "lease"):
            if getattr(self, name) is not None:
                seconds(getattr(self, name), name)
        for name in ("stale_while_revalidate", "stale_if_error", "early_refresh"):
            value = getattr(self, name)
            if (type(value) is bool or value != 0) and not math.isfinite(price(value, name)):
                raise ValueError(f"{name} must be finite, not {value!r}")
        seconds(self.retry, "retry")
        share(self.ttl_jitter, "ttl_jitter")
        if self.maxsize is not None:
            positive_int(self.maxsize, "maxsize")
        if self.max_bytes is not None:
            size_in_bytes(self.max_bytes, "max_bytes")

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "policy") -> Policy:
        """A policy of settings by name, as a file has them."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise ValueError(f"{where} has no setting {unknown[0]!r}; there are {sorted(known)}")
        return cls(**settings)


def load_policies(path: str | PathLike[str]) -> dict[str, Policy]:
    """The policies of a TOML or YAML file, by namespace: a table for each, of Policy's fields.

    A table named `default` holds for what the others do not say; it is returned as "" too.

    Raises:
        ValueError: the file is not of that form, or a setting is out of range.
        TypeError: a setting is of the wrong kind.
        ImportError: YAML without its package (`pip install "cachecore-ml[yaml]"`).
    """
    name = fspath(path)
    text = Path(name).read_text(encoding="utf-8")
    tables = _of_yaml(text, name) if name.endswith((".yaml", ".yml")) else _of_toml(text, name)
    if not isinstance(tables, dict) or not all(
        isinstance(each, str) and isinstance(own, dict) for each, own in tables.items()
    ):
        raise ValueError(f"{name} must be a table of settings for each namespace")
    common = tables.pop("default", {})
    return {
        "": Policy.of(common, "default"),
        **{each: Policy.of({**common, **own}, each) for each, own in tables.items()},
    }


def _of_toml(text: str, name: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name} is no TOML: {error}") from error


def _of_yaml(text: str, name: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError('YAML needs: pip install "cachecore-ml[yaml]"') from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no YAML: {error}") from error


def check_arguments(
    tiers: list[Any], namespace: Any, write: Any, exclusive: Any, on_event: Any
) -> None:
    """Arguments of a TieredCache that are no lifetimes; TypeError or ValueError naming one."""
    for tier in tiers:
        if not isinstance(tier, Tier):
            raise TypeError(f"tiers must be Tier objects, not {type(tier).__name__}")
    if not isinstance(namespace, str):
        raise TypeError(f"namespace must be a str, not {type(namespace).__name__}")
    if "\0" in namespace or not _is_utf8(namespace):
        raise ValueError("namespace must not contain NUL or lone surrogates")
    if write not in ("through", "around"):
        raise ValueError(f'write must be "through" or "around", not {write!r}')
    if not tiers and (write == "around" or exclusive):
        raise ValueError('write="around" and exclusive need tiers')
    if on_event is not None and not callable(on_event):
        raise TypeError(f"on_event must be callable, not {type(on_event).__name__}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
