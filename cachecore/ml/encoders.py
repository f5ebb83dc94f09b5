"""CachedEncoder: a sentence-transformers model whose rows come from an EmbeddingCache."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cachecore.ml.fingerprints import fingerprint
from cachecore.ml.versions import model_version

if TYPE_CHECKING:
    from cachecore.ml.embeddings import EmbeddingCache, EmbeddingStats

# Arguments of `encode` that say how to compute and what to return, not what the rows are.
_HOW = {
    "batch_size", "show_progress_bar", "convert_to_numpy", "convert_to_tensor", "device", "pool",
    "chunk_size",
}  # fmt: skip
# What they must be for rows to be those that are kept: whole ones, as the model computes them.
_WHOLE = {"output_value": "sentence_embedding", "precision": "float32", "truncate_dim": None}


class CachedEncoder:
    """A drop-in for a `SentenceTransformer`, made by `EmbeddingCache.wrap(model)`.

    `encode`, `encode_query` and `encode_document` take and return what the model's do, and give the
    model only texts whose rows are not known. Prompts, `normalize_embeddings` and what else changes
    the rows are part of their keys. What is no text, and calls for other `output_value`,
    `precision` or `truncate_dim`, go to the model as they are; so does everything else that is
    asked of this object.

    A row depends on the batch it was computed in, in its last bits, and then it stays as it is.
    Wrap a model anew after it was trained further or set up otherwise.

    Its attributes are the model's and cannot be set here.

    Attributes:
        model: the model itself.
        embeddings: the EmbeddingCache, of which `embed`, `precompute` and `stats` can be used too.
    """

    __slots__ = ("_dtype", "_signatures", "_truncate_dim", "embeddings", "model")

    def __init__(self, cache: type[EmbeddingCache], model: Any, **settings: Any) -> None:
        self.model = model
        self._truncate_dim = getattr(model, "truncate_dim", None)
        self._signatures: dict[str, inspect.Signature] = {}
        settings.setdefault("model", type(model).__name__)
        if "version" not in settings:
            settings["version"] = _version_of(model)
        if "dim" not in settings:
            dims = getattr(model, "get_embedding_dimension", None)
            settings["dim"] = (dims or model.get_sentence_embedding_dimension)()
        self._dtype = str(getattr(model, "dtype", ""))
        settings.setdefault("dtype", "float16" if self._dtype == "torch.float16" else "float32")
        self.embeddings = cache(self._caller(model.encode, {}), **settings)

    def __getattr__(self, name: str) -> Any:
        if name in CachedEncoder.__slots__:  # before it is made, as by pickle
            raise AttributeError(name)
        return getattr(self.model, name)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """The same as the model's."""
        return self._call("encode", args, kwargs)

    def encode_query(self, *args: Any, **kwargs: Any) -> Any:
        """The same as the model's."""
        return self._call("encode_query", args, kwargs)

    def encode_document(self, *args: Any, **kwargs: Any) -> Any:
        """The same as the model's."""
        return self._call("encode_document", args, kwargs)

    def stats(self) -> EmbeddingStats:
        """What was counted so far."""
        return self.embeddings.stats()

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function = getattr(self.model, method)
        cache = None
        bound = self._bound(method, function, args, kwargs)
        if bound is not None:
            inputs, options = bound
            cache = self._cache_for(method, function, inputs, options)
        if cache is None:
            return function(*args, **kwargs)
        if isinstance(inputs, str):
            return self._converted(cache.embed([inputs]), options)[0]
        return self._converted(cache.embed(inputs), options)

    def _bound(
        self, method: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """The inputs and, by name, the other arguments that are not the defaults; None: no call."""
        signature = self._signatures.get(method)
        if signature is None:
            signature = self._signatures[method] = inspect.signature(function)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return None  # the model says what is wrong
        first = next(iter(signature.parameters))
        options = dict(bound.arguments)
        inputs = options.pop(first)
        options.update(options.pop("kwargs", {}))
        for name, parameter in signature.parameters.items():
            if name in options and _same(options[name], parameter.default):
                del options[name]
        return inputs, options

    def _cache_for(
        self, method: str, function: Callable[..., Any], inputs: Any, options: dict[str, Any]
    ) -> EmbeddingCache | None:
        """The cache with rows of such a call, or None: the model is to be asked."""
        texts = type(inputs) is str or (
            isinstance(inputs, (list, tuple)) and inputs and {str}.issuperset(map(type, inputs))
        )
        whole = all(_same(options.get(name, value), value) for name, value in _WHOLE.items())
        if (
            not texts
            or not whole
            or getattr(self.model, "truncate_dim", None) != self._truncate_dim
        ):
            return None
        params = {name: value for name, value in options.items() if name not in _HOW}
        if method != "encode":
            params["method"] = method
        try:
            return self.embeddings.variant(self._caller(function, options), params or None)
        except TypeError:
            return None  # an argument that has no fingerprint

    def _caller(
        self, function: Callable[..., Any], options: dict[str, Any]
    ) -> Callable[[list[str]], Any]:
        options = {**options, "convert_to_numpy": True, "convert_to_tensor": False}
        return lambda texts: function(texts, **options)

    def _converted(self, rows: Any, options: dict[str, Any]) -> Any:
        tensor = options.get("convert_to_tensor", False)
        if not tensor and options.get("convert_to_numpy", True):
            return rows
        import torch

        device = options.get("device") or self.model.device
        converted = torch.from_numpy(rows)
        if self._dtype == "torch.bfloat16":  # which NumPy does not know, and float32 holds
            converted = converted.bfloat16()
        if options.get("pool") is None and not isinstance(device, list):
            converted = converted.to(device)
        return converted if tensor else list(converted)


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _version_of(model: Any) -> str:
    """A digest of the weights, and of how the modules are set up."""
    names = ("max_seq_length", "prompts", "default_prompt_name")
    setup = [str(model), *(getattr(model, name, None) for name in names)]
    weights = model_version(model.state_dict())
    return fingerprint(setup, model="sentence-transformers", version=weights).hex()[:32]
