"""Policy and TieredCache's arguments: what they mean, what is refused, files of policies."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from cachecore import TieredCache
from cachecore.tiers import Breaker, MmapTier, Policy, RedisTier, load_policies
from support import Clock
from tiers.caches import Counting, Make, Open

FIELDS: dict[str, Any] = {
    "ttl": 60.0, "ttl_jitter": 0.1, "negative_ttl": 5.0, "stale_while_revalidate": 30.0,
    "stale_if_error": 300.0, "early_refresh": 1.0, "retry": 2.0, "load_timeout": 10.0,
    "lease": 3.0, "maxsize": 100, "max_bytes": "64MB", "codec": "msgpack",
}  # fmt: skip
TOML = """
[default]
ttl = 60
maxsize = 100

[users]
ttl_jitter = 0.1
negative_ttl = 5

["feature store"]
ttl = 5
max_bytes = "1GB"
stale_if_error = 3600.5
codec = "array"
"""
YAML = """
default:
  ttl: 60
  maxsize: 100
users: {ttl_jitter: 0.1, negative_ttl: 5}
feature store:
  ttl: 5
  max_bytes: 1GB
  stale_if_error: 3600.5
  codec: array
"""
EXPECTED = {
    "": Policy(ttl=60, maxsize=100),
    "users": Policy(ttl=60, maxsize=100, ttl_jitter=0.1, negative_ttl=5),
    "feature store": Policy(
        ttl=5, maxsize=100, max_bytes="1GB", stale_if_error=3600.5, codec="array"
    ),
}


# --- files


@pytest.mark.parametrize(("name", "text"), [("p.toml", TOML), ("p.yaml", YAML), ("p.yml", YAML)])
def test_a_file_of_policies(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert load_policies(file) == load_policies(str(file)) == EXPECTED
    cache = TieredCache(policy=load_policies(file)["users"], namespace="users")
    assert cache.l0.maxsize == 100
    cache.close()


def test_every_field_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    lines = [
        f"{name} = {value!r}".replace("'", '"') for name, value in FIELDS.items()
    ]  # fmt: skip
    file.write_text("[ns]\n" + "\n".join(lines))
    assert load_policies(file) == {"": Policy(), "ns": Policy(**FIELDS)}
    assert set(FIELDS) == {field.name for field in dataclasses.fields(Policy)}
    file.write_text("")
    assert load_policies(file) == {"": Policy()}
    (tmp_path / "p.yaml").write_text("")
    assert load_policies(tmp_path / "p.yaml") == {"": Policy()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", "[ns]\ntll = 5"), ("p.toml", "[ns]\nttl = -5"), ("p.toml", "ttl = 5"),
        ("p.toml", "[ns"), ("p.yaml", "- 1\n- 2"), ("p.yaml", "ns: 5"), ("p.yaml", "ns: [5"),
        ("p.yaml", "!!python/object/apply:os.system ['true']"), ("p.yaml", "5: {ttl: 5}"),
        ("p.yaml", "ns:"),
    ],
)  # fmt: skip
def test_a_file_of_something_else(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ValueError, match=r"tll|ttl|p\.toml|p\.yaml"):
        load_policies(file)


def test_a_setting_of_the_wrong_type(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[ns]\nttl = "5"')
    with pytest.raises(TypeError, match="ttl"):
        load_policies(file)
    with pytest.raises(FileNotFoundError):
        load_policies(tmp_path / "none.toml")


# --- fields


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("ttl", "negative_ttl", "load_timeout", "lease", "retry")
          for value in (0, -1, math.nan, "1", True)),
        *((name, value) for name in ("stale_while_revalidate", "stale_if_error", "early_refresh")
          for value in (-1, math.nan, math.inf, "1", True, False, None)),
        *(("ttl_jitter", value) for value in (-0.1, 1.1, math.nan, "1", True)),
        *(("maxsize", value) for value in (0, -1, 1.5, "1", True)),
        *(("max_bytes", value) for value in (0, -1, 1.5, "x", True)),
    ],
)  # fmt: skip
def test_a_field_out_of_range(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        Policy(**{name: value})


def test_a_policy_is_a_value() -> None:
    policy = Policy(**FIELDS)
    assert policy == Policy(**FIELDS)
    assert dataclasses.replace(policy, ttl=1) != policy
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.ttl = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Policy(60)  # type: ignore[call-arg]
    assert Policy(ttl=math.inf).ttl == math.inf


# --- a cache's arguments


def test_arguments_take_precedence(clock: Clock) -> None:
    policy = Policy(ttl=60, maxsize=100, stale_while_revalidate=5, stale_if_error=50)
    cache = TieredCache(10, policy=policy, ttl=30, negative_ttl=7, timer=clock)
    assert cache.policy == dataclasses.replace(policy, ttl=30, maxsize=10, negative_ttl=7)
    cache.set("key", 1)
    assert cache.l0.get_ttl("key") == pytest.approx(80)
    assert TieredCache(policy=policy, stale_ttl=0).policy.stale_if_error == 0
    assert policy.ttl == 60


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"maxsize": None}, ValueError, "maxsize"), ({"maxsize": 0}, ValueError, "maxsize"),
        ({"max_bytes": "x"}, ValueError, "max_bytes"), ({"tiers": [1]}, TypeError, "tiers"),
        ({"tiers": 5}, TypeError, None), ({"codec": "none"}, ValueError, "codec"),
        ({"codec": 5}, TypeError, "codec"), ({"namespace": 5}, TypeError, "namespace"),
        ({"namespace": "a\0b"}, ValueError, "namespace"), ({"policy": {}}, TypeError, "policy"),
        ({"namespace": "\ud800"}, ValueError, "namespace"),
        ({"ttl": 0}, ValueError, "ttl"), ({"ttl_jitter": 2}, ValueError, "ttl_jitter"),
        ({"negative_ttl": 0}, ValueError, "negative_ttl"), ({"stale_ttl": -1}, ValueError, "stale"),
        ({"early_refresh": -1}, ValueError, "early_refresh"), ({"write": "x"}, ValueError, "write"),
        ({"write": "around"}, ValueError, "tiers"), ({"exclusive": True}, ValueError, "tiers"),
        ({"on_event": 5}, TypeError, "on_event"), ({"timer": 5}, TypeError, "timer"),
        ({"nonsense": 5}, TypeError, "nonsense"),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_are_refused(settings: dict[str, Any], error: Any, name: Any) -> None:
    with pytest.raises(error, match=name):
        TieredCache(**{"maxsize": 10, **settings})


def test_tiers_that_are_not_quick_get_a_breaker(make: Make, store: Counting) -> None:
    slow = RedisTier("redis://127.0.0.1:1", timeout=0.05)
    own = Breaker(RedisTier("redis://127.0.0.1:1", timeout=0.05))
    wrapped = Counting(own)
    cache = make(tiers=[store, slow, own, wrapped])
    assert cache.tiers[0] is store
    assert isinstance(cache.tiers[1], Breaker)
    assert cache.tiers[2] is own
    assert cache.tiers[3] is wrapped


def test_a_bound_in_bytes(make: Make, store: Counting) -> None:
    cache = make(None, max_bytes="64KB", tiers=[store])
    for key in range(100):
        cache.set(key, b"x" * 4000)
    assert cache.l0.stats().bytes <= 64 * 1024
    assert cache.get_many(range(100)) == [b"x" * 4000] * 100


def test_a_time_limit_of_loading(make: Make, store_at: Open, mode: str) -> None:
    import asyncio
    import time

    from tiers.caches import call

    def one(key: str) -> str:
        time.sleep(0.3 if key == "slow" else 0)
        return key

    async def aone(key: str) -> str:
        await asyncio.sleep(5 if key == "slow" else 0)
        return key

    for loader in [one] if mode == "sync" else [one, aone]:
        cache = make(loader=loader, policy=Policy(load_timeout=0.05))
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"1 keys took more than 0\.05 s"):
            call(mode, cache.get, "slow")
        assert time.monotonic() - begin < 1
        assert call(mode, cache.get, "quick") == "quick"
    assert isinstance(store_at("unused").tier, MmapTier)
