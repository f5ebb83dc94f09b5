"""No two different lists of arguments share bytes, and equal ones do."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from cachecore.ml import fingerprint
from ml.canonical import ARRAYS, MODEL, SCALARS, VALUES, encoded, essence, read

INPUTS = st.lists(VALUES, max_size=3).map(tuple)


@given(INPUTS, VALUES, st.text(max_size=3), st.binary(max_size=3))
def test_an_encoding_can_be_read_back(inputs: Any, params: Any, domain: str, salt: bytes) -> None:
    """So it is no other's."""
    data = encoded(*inputs, params=params, domain=domain, salt=salt)
    parts = ["sha3_256", salt, domain, "m", "1", params, inputs]
    assert read(data) == [essence(part) for part in parts]


@given(INPUTS, INPUTS)
def test_bytes_are_shared_by_equal_arguments_only(one: Any, two: Any) -> None:
    assert (encoded(*one) == encoded(*two)) is (essence(one) == essence(two))


@given(st.data())
def test_neighbours(data: st.DataObject) -> None:
    """What is moved over the border of two parts, or changes places with its neighbour."""
    first, second, third = (data.draw(SCALARS | ARRAYS) for _ in range(3))
    forms = [
        (first, second, third), (first, (second, third)), ((first, second), third),
        ((first, second, third),), ([first, second, third],), (first, [second, third]),
        (first, second, third, ()), (third, second, first), (first, {"k": [second, third]}),
        (first, second), (first,), ([first], [second], [third]),
    ]  # fmt: skip
    for one, two in itertools.combinations(forms, 2):
        assert (encoded(*one) == encoded(*two)) is (essence(one) == essence(two))


DIFFERENT: list[tuple[Any, ...]] = [
    (), ((),), ([],), ({},), (set(),), ("",), (b"",), (None,), (0,), (False,), (0.0,), (-0.0,),
    ("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), (["a", "b", "c"],), (("a", "b", "c"),),
    (b"abc",), (1,), (1.0,), (True,), ("1",), (b"1",), ([1],), ((1,),), ([[1]],), ({1},),
    ({1: None},), ({"1": None},), ({1: 1},), ([1, 1],), (1, 1), (2**64,), (-(2**64),), (256,),
    (float("nan"),), (float("inf"),), (float("-inf"),), ("nan",), ("None",), ("é",), ("e\u0301",),
    ("\ud800",), ("\ud83d\ude00",), ("\U0001f600",), (np.array(1),), (np.array([1]),),
    (np.array([[1]]),), (np.int32(1),), (np.uint64(1),), (np.float64(1),), (np.bool_(True),),
    (np.array("1"),), (np.array(b"1"),), (np.zeros((2, 3)),), (np.zeros((3, 2)),), (np.zeros(6),),
    (np.zeros((0, 3)),), (np.zeros((3, 0)),), (np.zeros(0),), (np.zeros(0, "f4"),),
    (np.zeros(6, "i8"),), (np.zeros(6, "M8[s]"),), (np.zeros(6, "M8[ms]"),), (np.zeros(6, "V8"),),
    (np.zeros(6, [("a", "f8")]),), (np.zeros(6, [("b", "f8")]),), (np.zeros(6, "S8"),),
    (np.zeros(6, [("a", "f8", (1,))]),), (np.zeros(6, [("a", "f4"), ("b", "f4")]),),
    (np.zeros(6, [("b", "f4"), ("a", "f4")]),),
]  # fmt: skip


def test_a_list_of_arguments_that_are_all_different() -> None:
    for digest in ("sha3_256", "blake2b", "blake3"):
        streams = {encoded(*inputs, digest=digest) for inputs in DIFFERENT}
        digests = {fingerprint(*inputs, digest=digest, **MODEL) for inputs in DIFFERENT}
        assert len(streams) == len(digests) == len(DIFFERENT)


@dataclasses.dataclass
class Point:
    x: int


class Colour(enum.Enum):
    RED = 1


def test_the_encoding_of_dataclasses_and_enums() -> None:
    """As the golden digests do for other values: it stays as it is."""

    def text(characters: str) -> bytes:
        return b"u" + bytes([len(characters)]) + characters.encode()

    one = b"i\x01\x01"
    point = b"c" + text(__name__) + text("Point") + b"\x01" + text("x") + one
    colour = b"e" + text(__name__) + text("Colour") + text("RED") + one
    assert encoded(Point(1), Colour.RED).endswith(b"t\x02" + point + colour)


def test_a_module_is_not_a_class_with_a_class_in_it() -> None:
    values: list[Any] = []
    for module, name in (("a.b", "c"), ("a", "b.c")):
        record = dataclasses.make_dataclass("c", [])
        members = enum.Enum("members", "X")
        for kind in (record, members):
            kind.__module__, kind.__qualname__ = module, name
        values += [record(), *members]
    assert len({encoded(value) for value in values}) == 4


@pytest.mark.parametrize("dtype", ["S0", "U0", "V0"])
def test_items_of_no_bytes(dtype: str) -> None:
    """Nothing stands for them, whatever the strides."""
    rows = np.zeros(6, [("a", dtype), ("b", "i4")])["a"]
    for array in (rows, rows[::2], rows[:0]):
        assert encoded(array).endswith(b'"\x01' + bytes([len(array)]))
    assert encoded(rows[::2]) == encoded(rows[:3])


def test_each_part_counts_in_its_own_place() -> None:
    texts = ["", "a", "b"]
    calls: list[dict[str, Any]] = [
        {"model": model, "version": version, "params": params, "domain": domain, "salt": salt}
        for model in texts[1:]
        for version in ("a", "b", 1, "1")
        for params in (*texts, None, {}, {"a": "b"})
        for domain in texts
        for salt in (b"", b"a", "a", "")
    ]
    assert len({fingerprint("a", **call) for call in calls}) == len(calls)
    assert len({fingerprint("a", digest=d, **MODEL) for d in ("sha3_256", "blake2b")}) == 2


@given(VALUES)
def test_order_does_not_count_in_dicts_and_sets(value: Any) -> None:
    assert encoded(reordered(value)) == encoded(value)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    if isinstance(value, frozenset):
        items = list(value)
        items.reverse()
        return set(items)
    if isinstance(value, list | tuple):
        return type(value)(map(reordered, value))
    return value


DTYPES = st.one_of(
    nst.scalar_dtypes(), nst.byte_string_dtypes(), nst.unicode_string_dtypes(),
    st.just(np.dtype([("a", ">i2"), ("b", "S3"), ("c", "<f8", (2,)), ("d", [("e", ">u4")])])),
).filter(lambda dtype: dtype.char not in "gG")  # fmt: skip


@given(nst.arrays(DTYPES, nst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_strides_and_byte_order_do_not_count(array: np.ndarray[Any, Any]) -> None:
    expected = encoded(array)
    spread = np.empty((*array.shape, 2), array.dtype)[..., 0]
    spread[...] = array
    backwards: Any = (*(slice(None, None, -1),) * array.ndim, ...)
    flipped = array[backwards].copy()[backwards]
    swapped = array.astype(array.dtype.newbyteorder("S"))
    for other in (np.asfortranarray(array).reshape(array.shape), spread, flipped, swapped):
        assert other.shape == array.shape
        assert encoded(other) == expected
    for index in itertools.islice(np.ndindex(array.shape), 3):
        if array.dtype.kind not in "SU":
            assert encoded(array[index]) == encoded(np.array(array[index], array.dtype))
        else:
            assert encoded(array[index]) == encoded(array[index].item())


@pytest.mark.parametrize("align", [False, True])
def test_gaps_between_fields_do_not_count(align: bool) -> None:
    packed = np.dtype([("a", "i1"), ("b", "f8"), ("c", [("x", "i2"), ("y", "u1")])], align=False)
    gaps = np.dtype(
        {"names": ["a", "b", "c"], "formats": [packed[n] for n in "abc"], "offsets": [3, 8, 20],
         "itemsize": 40}
    )  # fmt: skip
    rows = np.zeros(5, packed)
    rows["a"], rows["b"], rows["c"]["x"] = range(5), np.linspace(0, 1, 5), 7
    loose = np.frombuffer(bytes(range(200)), gaps).copy()  # the gaps hold something
    for name in ("a", "b"):
        loose[name] = rows[name]
    loose["c"] = rows["c"]
    others = [loose, rows.astype(np.dtype(packed.descr, align=align)), rows.view(np.recarray)]
    for other in others[:2]:
        assert encoded(other) == encoded(rows)
    assert encoded(np.asarray(others[2])) == encoded(rows)
