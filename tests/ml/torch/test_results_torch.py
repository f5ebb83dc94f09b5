"""ResultCache in front of torch modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore.ml import ResultCache
from ml.models import table

torch = pytest.importorskip("torch")


class Scorer(torch.nn.Module):  # type: ignore[name-defined]
    """A layer whose sums are of whole numbers: the same in any batch, to the last bit."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2, bias=False)
        self.dropout = torch.nn.Dropout(0.5)
        torch.nn.init.constant_(self.layer.weight, 2.0)

    def predict(self, rows: Any) -> Any:
        return self.layer(self.dropout(torch.from_numpy(rows).float()))


def test_tensors_come_back_as_arrays() -> None:
    module = Scorer().eval()
    cache = ResultCache(module, model="scorer", version="1", maxsize=100)
    for rows in (table(3), table(5), table(5)[[4, 0, 4]]):
        result, expected = cache.predict(rows), module.predict(rows).detach().numpy()
        np.testing.assert_array_equal(result, expected, strict=True)
    assert cache.savings().total.rows_computed == 5


def test_tensors_that_cannot_be_kept() -> None:
    results: dict[str, Any] = {
        "which NumPy does not have": torch.ones(2, dtype=torch.bfloat16),
        "NaN for 1 of the 2 inputs": [torch.ones(2), torch.tensor([1.0, torch.nan])],
    }
    for message, result in results.items():
        cache = ResultCache(lambda _, r=result: r, model="scorer", version="1", maxsize=100)
        with pytest.raises((TypeError, ValueError), match=message):
            cache.predict(table(2))
        assert len(cache) == 0


def test_a_module_in_training_mode_is_refused() -> None:
    module = Scorer().train()
    cache = ResultCache(module, model="scorer", version="1", maxsize=100)
    with pytest.raises(ValueError, match=r"scorer is in training mode: call its eval\(\) first"):
        cache.predict(table(3))
    assert len(cache) == 0
    module.eval()
    assert cache.predict(table(1)).tolist() == [[12.0, 12.0]]
