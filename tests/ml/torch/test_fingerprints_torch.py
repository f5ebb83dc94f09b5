"""Fingerprints of torch tensors, and versions of torch models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore.ml import fingerprint, model_version
from ml.canonical import MODEL, encoded

torch = pytest.importorskip("torch")

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
    "complex64", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0)])
def test_dtypes_and_shapes(name: str, shape: tuple[int, ...]) -> None:
    """The bytes are those of the same items as an array of bytes."""
    dtype = getattr(torch, name)
    tensor = (torch.arange(int(np.prod(shape)), dtype=torch.float32) % 2).reshape(shape).to(dtype)
    data = bytes(tensor.reshape(-1).view(torch.uint8).numpy())
    text = f"torch.{name}".encode()
    head = b"x" + bytes([len(text)]) + text + bytes([len(shape), *shape])
    assert encoded(tensor).endswith(b"t\x01" + head + data)


def test_strides_and_gradients_do_not_count() -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    same = [
        tensor.t().contiguous().t(),
        tensor.clone().requires_grad_(),
        torch.nn.Parameter(tensor),
        torch.stack([tensor, tensor], -1)[..., 0],
        tensor.clone().requires_grad_() * 1,
    ]
    for other in same:
        assert fingerprint(other, **MODEL) == fingerprint(tensor, **MODEL)
    waves = torch.tensor([1 + 2j, 3j])
    assert encoded(waves.conj()) == encoded(torch.tensor([1 - 2j, complex(0, -3)]))
    assert encoded(waves.conj().imag) == encoded(torch.tensor([-2.0, -3.0]))


def test_a_tensor_is_not_an_array() -> None:
    values: list[Any] = [
        torch.ones(2), torch.ones(2).numpy(), torch.ones(2).tolist(), torch.ones(1, 2),
        torch.ones(2).double(), torch.tensor(1), torch.tensor(1.0), torch.tensor(True), 1, 1.0,
        torch.ones(2).half(), torch.ones(2).bfloat16(), torch.ones(4, dtype=torch.int8),
    ]  # fmt: skip
    assert len({encoded(value) for value in values}) == len(values)


TENSOR: Any = torch.Tensor  # which the type checker knows only where it is installed


class Marked(TENSOR):
    """Tensors of packages carry more than their items."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        lambda: torch.ones(2).as_subclass(Marked),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.float32,
        lambda: torch.nn.Linear(1, 1),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_is_refused(make: Any) -> None:
    with pytest.raises(TypeError, match=r"^inputs\[0\]\['t'\] is of type .*torch.* no fingerprint"):
        fingerprint({"t": make()}, **MODEL)


def test_golden() -> None:
    tensors = (torch.arange(3), torch.ones(2, 2, dtype=torch.bfloat16))
    assert (
        fingerprint(*tensors, **MODEL).hex()
        == "c2e9c004893ae5818d3167c5b53a8d38e96277bd6f3716403b777badaca97fd1"
    )


def test_a_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    version = model_version(model.state_dict())
    torch.manual_seed(0)
    again = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    assert model_version(again.state_dict()) == version
    versions = {version, model_version(model.half().state_dict())}
    with torch.no_grad():
        model[0].bias[0] += 1
    versions.add(model_version(model.state_dict()))
    versions.add(model_version({name: t.numpy() for name, t in model.state_dict().items()}))
    assert len(versions) == 4
