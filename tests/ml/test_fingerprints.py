"""What a fingerprint is of: golden digests, what equals what, what is refused and how."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
import subprocess
import sys
import threading
import tracemalloc
import types
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from pathlib import Path
from typing import Any

import blake3
import ml_dtypes
import numpy as np
import pytest

from cachecore.ml import fingerprint
from ml.canonical import MODEL, encoded

BARE = {
    "sha3_256": lambda data: hashlib.sha3_256(data).digest(),
    "blake2b": lambda data: hashlib.blake2b(data, digest_size=32).digest(),
    "blake3": lambda data: blake3.blake3(data).digest(),
}


@dataclasses.dataclass
class Query:
    text: str
    top: int = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Deep:
    query: Query
    weights: Any


class Mode(enum.Enum):
    FAST = "fast"
    QUICK = FAST
    EXACT = "exact"


class Level(enum.IntEnum):
    LOW = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


EVERYTHING: tuple[Any, ...] = (
    "text", "ümlaut \ud800", b"bytes", 0, -1, 2**70, 1.5, -0.0, float("nan"), float("-inf"), None,
    True, [1, (2, [3])], {"b": 1, "a": {2: "x"}}, {"x", "y", 3}, np.arange(6).reshape(2, 3),
    np.float32(2.5), np.array(["ab", "c"]), np.array("2026-01-31", "M8[D]"),
    np.ones(2, ml_dtypes.bfloat16), np.zeros(1, [("id", "i4"), ("name", "S3")]),
)  # fmt: skip
GOLDEN: list[tuple[str, tuple[Any, ...], str]] = [
    ("sha3_256", (), "09f692f58e1497d397a87783a1e9b9f46271bdff343f49b4aa92567ef575822b"),
    ("sha3_256", ("ab", "c"), "4d0ce0b6514ade884bc50f738f54ee2415bd50789e81fd4e9410a66c09e45464"),
    ("sha3_256", EVERYTHING, "a954cca84bc0d41630a86ac3d7dde57d74f68153288814244cd43e86884d2db0"),
    ("blake2b", (), "dbb3b62e85ce6d49343c29d8a9dbea524605b8a32caa99411f2ae967203521f7"),
    ("blake2b", ("ab", "c"), "080e46dbd8d8853a41691f6c3012c09f9c83f414107e6879ba4c5637271ae9e1"),
    ("blake2b", EVERYTHING, "3baabf9d507943f4325e6da7d524ad13368d7bb29e60d33efbbfe47995e2569e"),
    ("blake3", (), "631fbb5faead0a5a1d2460fe68a6ec2c2d847531ed43ce6726a1cbe0bf6e04fc"),
    ("blake3", ("ab", "c"), "7b0f1fb0b069d229048a62dc2dde4db55f7d08be4b84ef993a636b7790798bf3"),
    ("blake3", EVERYTHING, "bcca5628c0dc92587c5190564c636e45790e41f06bfd7003312937e6a8d83350"),
]


@pytest.mark.parametrize(("digest", "inputs", "expected"), GOLDEN)
def test_golden(digest: str, inputs: tuple[Any, ...], expected: str) -> None:
    found = fingerprint(
        *inputs, model="minilm", version="6", params={"k": 1}, domain="d", salt=b"s", digest=digest
    )
    assert found.hex() == expected


@pytest.mark.parametrize("digest", BARE)
@pytest.mark.parametrize("size", [0, 1, 8_191, 8_192, 20_000, 1_000_000])
def test_a_fingerprint_is_the_digest_of_the_encoding(digest: str, size: int) -> None:
    """However it comes together: in the buffer, in pieces, or from where it lies."""
    data = np.random.default_rng(size).bytes(size)
    inputs = (
        data, data.hex(), np.frombuffer(data, np.uint8)[::2], {data: {data, "é" * size}},
        [*map(str, range(size // 100))], [(data[:9_000], {"k": at}) for at in range(3)],
    )  # fmt: skip
    assert fingerprint(*inputs, digest=digest, **MODEL) == BARE[digest](
        encoded(*inputs, digest=digest)
    )


def test_the_encoding_of_small_things() -> None:
    parts = b"cachecore.1" + b"u\x08sha3_256" + b"b\x01s" + b"u\x01d" + b"u\x01m" + b"u\x011"
    parts += b"d\x01u\x01ki\x02\x80\x00" + b"t\x02" + b"u\x02hi" + b'a\x05"<f4"\x01\x01\0\0\x80?'
    inputs = ("hi", np.ones(1, "f4"))
    assert encoded(*inputs, params={"k": 128}, domain="d", salt=b"s") == parts
    assert fingerprint(*inputs, params={"k": 128}, domain="d", salt=b"s", **MODEL) == (
        hashlib.sha3_256(parts).digest()
    )


# --- what equals what ---


SAME: list[tuple[Any, Any]] = [
    (b"ab", bytearray(b"ab")),
    (b"ab", memoryview(b"ab")),
    (b"ac", memoryview(b"abcd")[::2]),
    (b"ab", memoryview(b"ab").cast("c")),
    ({1, 2}, frozenset({2, 1})),
    (float("nan"), -float("nan")),
    (np.float32(2), np.array(2, "f4")),
    (np.str_("\ud800b"), "\ud800b"),
    (np.bytes_(b""), b""),
    (np.bytes_(b"\0"), b"\0"),
    (np.zeros(3, np.intc), np.zeros(3, np.int32)),
    (np.zeros(3, "q"), np.zeros(3, "l")),
    (np.zeros(3), np.broadcast_to(np.float64(0), 3)),
    (np.arange(3).astype("M8[2000000ps]"), np.arange(3).astype("M8[2us]")),
    (np.timedelta64(5, "ns"), np.array(5, [("t", "m8[1000ps]")])["t"]),
    (Mode.FAST, Mode.QUICK),
    (Query("a"), Query(text="a", top=10)),
]


@pytest.mark.parametrize("pair", SAME, ids=repr)
def test_one_value_in_two_forms(pair: tuple[Any, Any]) -> None:
    assert encoded(pair[0]) == encoded(pair[1])


def test_dataclasses_and_enums_are_known_by_their_types() -> None:
    @dataclasses.dataclass
    class Other:
        text: str
        top: int = 10

    values = [
        Query("a"), Query("b"), Query("a", 11), Other("a"), {"text": "a", "top": 10}, ["a", 10],
        Deep(Query("a"), None), Deep(Query("a"), np.zeros(2)), "a", "fast", Mode.FAST, Mode.EXACT,
        Level.LOW, 1, Rights.READ, Rights.READ | Rights.WRITE, Rights(0), Rights(3) & Rights(2),
    ]  # fmt: skip
    assert len({encoded(value) for value in values}) == len(values)


def test_a_memory_mapped_array_is_an_array(tmp_path: Path) -> None:
    weights = np.arange(5_000.0)
    np.save(tmp_path / "w.npy", weights)
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    assert fingerprint(mapped, **MODEL) == fingerprint(weights, **MODEL)


def test_an_int_takes_as_many_bytes_as_it_needs() -> None:
    numbers = {
        sign * 2**bits + more for bits in range(200) for more in (-1, 0, 1) for sign in (1, -1)
    }
    assert len({encoded(number) for number in numbers}) == len(numbers)
    for number in numbers:
        count = number.bit_length() // 8 + 1
        assert encoded(number).endswith(
            b"i" + bytes([count]) + number.to_bytes(count, "little", signed=True)
        )


def test_nothing_depends_on_the_process() -> None:
    """Sets of texts lie in another order in each process."""
    code = (
        "from cachecore.ml import fingerprint\n"
        "words = {str(n) for n in range(100)}\n"
        "print(fingerprint(words, dict.fromkeys(words), model='m', version='1').hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


# --- what is refused ---

Pair = namedtuple("Pair", "a b")  # noqa: PYI024


class Text(str):
    __slots__ = ()


class Wide(np.float64):
    pass


class Word(np.str_):  # type: ignore[misc]
    pass


class Heir(Query):
    """Not a dataclass of its own: what it adds would not be seen."""


class Mapping(dict[str, int]):
    pass


REFUSED: list[Any] = [
    object(), 1j, Decimal(1), range(3), Query, Mode, Level, len, iter([]), {}.keys(), ...,
    types.SimpleNamespace(a=1), Text("a"), OrderedDict(a=1), Counter("a"), Pair(1, 2),
    defaultdict(int), Mapping(), Heir("a"), Wide(1), Word("a"), Path("x"), np.array([{}]),
    np.zeros(1, [("a", "f4"), ("o", "O")]), np.ma.masked_array([1], [True]),
    np.zeros(1, [("a", "f4")]).view(np.recarray), np.longdouble(1), np.zeros(2, "G"),
    np.zeros(1, [("a", [("b", "g")])]), np.zeros(2).data, np.zeros((2, 2), "u1").data,
    np.array(["a"], np.dtypes.StringDType()),
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_anything_else_is_refused(value: Any) -> None:
    for digest in BARE:
        with pytest.raises(
            TypeError, match=r"^inputs\[1\] is of type .*, which has no fingerprint: "
        ):
            fingerprint(1, value, digest=digest, **MODEL)


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ((1j,), "inputs[0]"),
        (({"user": [0, {7: 1j}]},), "inputs[0]['user'][1][7]"),
        ((1, Deep(Query("a"), (1j,))), "inputs[1].weights[0]"),
        (({(1, 1j): 1},), "inputs[0]<key>[1]"),
        (({b"b": 1j},), "inputs[0][bytes key]"),
        (([frozenset({1j})],), "inputs[0][0]<item>"),
        (({"x" * 100: 1j},), "inputs[0]['" + "x" * 39 + "]"),
        (({10**5_000: 1j},), "inputs[0][int key]"),
    ],
)
def test_an_error_says_where(inputs: tuple[Any, ...], place: str) -> None:
    with pytest.raises(TypeError) as caught:
        fingerprint(*inputs, **MODEL)
    assert str(caught.value).startswith(f"{place} is of type complex, which has no")
    with pytest.raises(TypeError, match=r"^params\['t'\] is of type complex"):
        fingerprint(1, params={"t": 1j}, **MODEL)


def test_a_container_in_itself() -> None:
    loop: list[Any] = [1]
    loop.append({"again": [loop]})
    with pytest.raises(ValueError, match=r"^inputs\[0\]\[1\]\['again'\]\[0\] contains itself"):
        fingerprint(loop, **MODEL)
    table: dict[str, Any] = {}
    table["me"] = (table,)
    with pytest.raises(ValueError, match="contains itself"):
        fingerprint(table, **MODEL)
    query = Query("a")
    query.text = query  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"^inputs\[0\].text contains itself"):
        fingerprint(query, **MODEL)
    shared = [1]
    assert fingerprint([shared, shared], **MODEL) == fingerprint([[1], [1]], **MODEL)


def test_containers_in_one_another() -> None:
    deep: list[Any] = []
    for _ in range(199):
        deep = [deep]
    fingerprint(deep, **MODEL)
    with pytest.raises(ValueError, match="inputs is nested deeper than 200 containers"):
        fingerprint([deep], **MODEL)


def test_keys_that_are_one() -> None:
    nans = {float("nan"): 1, -float("nan"): 2}
    assert len(nans) == 2
    with pytest.raises(ValueError, match=r"inputs\[0\]: two keys have the same encoding"):
        fingerprint(nans, **MODEL)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": ""}, ValueError, "model must not be empty"),
        ({"model": b"m"}, TypeError, "model must be a str, not bytes"),
        ({"version": " "}, ValueError, "version must not be empty"),
        ({"version": 1.0}, TypeError, "version must be a str or an int, not float"),
        ({"version": True}, TypeError, "version must be a str or an int, not bool"),
        ({"version": None}, TypeError, "version must be a str or an int, not NoneType"),
        ({"domain": b""}, TypeError, "domain must be a str, not bytes"),
        ({"salt": 1}, TypeError, "salt must be bytes or a str, not int"),
        ({"salt": bytearray(b"s")}, TypeError, "salt must be bytes or a str, not bytearray"),
        ({"digest": "md5"}, ValueError, 'digest must be "sha3_256", "blake2b" or "blake3"'),
        ({"digest": ["blake3"]}, ValueError, 'digest must be "sha3_256", "blake2b" or "blake3"'),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    for _ in range(2):  # what is refused is not remembered
        with pytest.raises(error, match=message):
            fingerprint(1, **(MODEL | settings))
    with pytest.raises(TypeError, match="model"):
        fingerprint(1, version="1")  # type: ignore[call-arg]


def test_blake3_is_asked_for_by_name() -> None:
    code = (
        "import sys; sys.modules['blake3'] = None\n"
        "from cachecore.ml import fingerprint\n"
        "fingerprint(1, model='m', version='1')\n"
        "try: fingerprint(1, model='m', version='1', digest='blake3')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "cachecore-ml[ml]"' in done.stdout


# --- memory, threads, code that runs meanwhile ---


@pytest.mark.parametrize("digest", BARE)
def test_large_values_are_not_copied(digest: str) -> None:
    values: list[Any] = [np.zeros(2**23), bytes(2**26), bytearray(2**26), "a" * 2**26]
    fingerprint(values[0][:1], digest=digest, **MODEL)
    tracemalloc.start()
    for value in values:
        fingerprint([{"k": value}], digest=digest, **MODEL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_nothing_is_left_behind() -> None:
    def refused() -> None:
        for value in ({"a": ["b" * 10_000, 1j]}, {("k" * 100_000, 1j): 1}):
            with pytest.raises(TypeError):
                fingerprint(value, **MODEL)
        fingerprint({"a": ["b" * 10_000], "c": {1, 2}}, **MODEL)

    refused()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(50):
        refused()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 50_000


def test_threads_do_not_meet() -> None:
    inputs = [(np.full(50_000, at), "x" * at, {"k": at}) for at in range(8)]
    models = [f"m{at % 2}" for at in range(8)]
    alone = [
        fingerprint(*each, model=m, version="1") for each, m in zip(inputs, models, strict=True)
    ]
    found: list[list[bytes]] = [[] for _ in inputs]

    def work(at: int) -> None:
        for _ in range(30):
            found[at].append(fingerprint(*inputs[at], model=models[at], version="1"))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[expected] * 30 for expected in alone]


@dataclasses.dataclass
class Hostile:
    """Runs code when it is looked at."""

    act: Any

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return found() if name == "act" else found


def test_code_that_runs_meanwhile() -> None:
    items: list[Any] = [1, 2, 3]
    items.insert(0, Hostile(items.clear))
    with pytest.raises(RuntimeError, match="a container in inputs changed its size"):
        fingerprint(items, **MODEL)
    table: dict[Any, Any] = {}
    table |= {"a": Hostile(table.clear), "b": 2}
    assert len(fingerprint(table, **MODEL)) == 32
    nested = Hostile(lambda: fingerprint("x", model="other", version="2"))
    assert fingerprint([nested, 5], **MODEL) == fingerprint([nested, 5], **MODEL)
    with pytest.raises(ZeroDivisionError):
        fingerprint(Hostile(lambda: 1 // 0), **MODEL)
