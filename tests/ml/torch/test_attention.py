"""State of real transformers cut into blocks and joined again; generation with a PrefixCache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cachecore.ml import PrefixCache, blocks_of_past, past_of_blocks  # noqa: E402
from cachecore.tiers import MmapTier  # noqa: E402

WORDS, BLOCK = 200, 4
EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "prefix_generation.py"


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=256, n_embd=32, n_layer=2, n_head=4,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture(params=[llama, gpt2])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(7)
    make: Callable[[], Any] = request.param
    return make().eval()


def computed(model: Any, tokens: list[int], past: Any = None) -> Any:
    """What a model makes of tokens that follow `past`, and the past after them."""
    past = transformers.DynamicCache() if past is None else past
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), past_key_values=past)


def prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(3)
    system = random.integers(WORDS, size=30).tolist()
    return [system + random.integers(WORDS, size=3 + at % 9).tolist() for at in range(count)]


def generate(model: Any, prompt: list[int], cache: PrefixCache | None, count: int = 8) -> list[int]:
    blocks = [] if cache is None else cache.match(prompt[:-1]).blocks
    past = past_of_blocks(blocks)
    rest, said = prompt[past.get_seq_length() :], list(prompt)
    for _ in range(count):
        rest = [int(computed(model, rest, past).logits[0, -1].argmax())]
        said += rest
    if cache is not None:
        start = len(blocks) * BLOCK
        cache.put(said[:-1], [*blocks, *blocks_of_past(past, BLOCK, start)])
    return said


def test_blocks_are_the_state_bit_by_bit(model: Any) -> None:
    past = computed(model, list(range(19))).past_key_values
    blocks = blocks_of_past(past, BLOCK)
    assert len(blocks) == 4
    joined = past_of_blocks(blocks)
    assert joined.get_seq_length() == 16
    for ours, theirs in zip(joined.layers, past.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys[:, :, :16])
        assert torch.equal(ours.values, theirs.values[:, :, :16])
    rest = blocks_of_past(past, BLOCK, start=8)
    assert all((ours == theirs).all() for ours, theirs in zip(rest, blocks[2:], strict=True))
    assert blocks_of_past(past, BLOCK, start=16) == []


def test_bits_of_bfloat16_are_nothing_else(model: Any) -> None:
    """As int16 they would be large numbers, which a model takes without a word."""
    past = computed(model.bfloat16(), list(range(8))).past_key_values
    blocks = blocks_of_past(past, BLOCK)
    for dtype in (None, torch.float32, torch.float16):
        with pytest.raises(ValueError, match=r"dtype must be torch\.bfloat16"):
            past_of_blocks(blocks, dtype=dtype)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_state_that_is_not_finite_is_refused(model: Any, wrong: float) -> None:
    past = computed(model, list(range(8))).past_key_values
    past.layers[1].values = past.layers[1].values.clone()
    past.layers[1].values[0, 1, 5, 2] = wrong
    with pytest.raises(ValueError, match="past must be finite"):
        blocks_of_past(past, BLOCK)


@pytest.mark.parametrize(
    "blocks",
    [
        [b"bytes"],
        [(np.zeros(3),)],
        [np.zeros((2, 3, 2, BLOCK, 3))],
        [np.zeros((2, 2, 2, BLOCK, 3)), np.zeros((2, 2, 2, BLOCK, 5))],
    ],
)
def test_what_are_no_blocks_of_state_is_refused(blocks: Any) -> None:
    with pytest.raises(ValueError, match="blocks must be arrays that blocks_of_past has cut"):
        past_of_blocks(blocks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_come_back_as_they_were(dtype: Any) -> None:
    torch.manual_seed(7)
    past = computed(llama().to(dtype).eval(), list(range(8))).past_key_values
    cache = PrefixCache(block=BLOCK, max_bytes="1MB")
    cache.put(range(8), blocks_of_past(past, BLOCK))
    joined = past_of_blocks(cache.match(range(8)).blocks, dtype=dtype)
    for ours, theirs in zip(joined.layers, past.layers, strict=True):
        assert ours.keys.dtype == dtype
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


def test_the_same_tokens_with_and_without(model: Any, tmp_path: Path) -> None:
    """Also where hardly anything fits in memory, and blocks come back from a file."""
    tier = MmapTier(tmp_path / "blocks", max_bytes="64MB")
    ample = PrefixCache(block=BLOCK, max_bytes="64MB")
    scarce = PrefixCache(block=BLOCK, max_bytes=30_000, below=tier)
    for prompt in [*prompts(12), *prompts(12)]:
        expected = generate(model, prompt, None)
        assert generate(model, prompt, ample) == expected
        assert generate(model, prompt, scarce) == expected
        ample._check()
        scarce._check()
    assert ample.stats().hit_ratio > 0.6
    assert scarce.stats().returned > 0
    assert scarce.stats().hit_ratio == ample.stats().hit_ratio
    tier.close()


def test_a_model_that_goes_on_leaves_the_blocks_as_they_are(model: Any) -> None:
    cache = PrefixCache(block=BLOCK, max_bytes="1MB")
    cache.put(range(8), blocks_of_past(computed(model, list(range(8))).past_key_values, BLOCK))
    blocks = cache.match(range(8)).blocks
    before = [block.copy() for block in blocks]
    computed(model, [1, 2, 3], past_of_blocks(blocks))
    assert all((ours == theirs).all() for ours, theirs in zip(blocks, before, strict=True))


def test_tokens_are_tensors_too() -> None:
    cache = PrefixCache(block=BLOCK, max_bytes="1MB")
    cache.put(torch.arange(8), [np.zeros(3)] * 2)
    assert cache.match(torch.arange(8, dtype=torch.int32)).length == 8
    with pytest.raises(ValueError, match="one sequence"):
        cache.match(torch.zeros((1, 8), dtype=torch.int64))


@pytest.mark.parametrize(("batch", "sizes"), [(2, [8, 8]), (1, [8, 4]), (1, [])])
def test_what_cannot_be_cut_is_refused(batch: int, sizes: list[int]) -> None:
    past = transformers.DynamicCache()
    for at, size in enumerate(sizes):
        past.update(torch.zeros(batch, 2, size, 3), torch.zeros(batch, 2, size, 3), at)
    with pytest.raises(ValueError, match="past must hold one sequence"):
        blocks_of_past(past, BLOCK)


def test_other_kinds_of_past_are_refused(model: Any) -> None:
    for past in (None, (), ((torch.zeros(1, 2, 8, 3),) * 2,)):
        with pytest.raises(ValueError, match="past must be a DynamicCache"):
            blocks_of_past(past, BLOCK)
    with pytest.raises(ValueError, match="past must hold one sequence"):
        blocks_of_past(transformers.DynamicCache(config=model.config), BLOCK)  # nothing yet
    fixed = transformers.StaticCache(config=model.config, max_cache_len=32)
    computed(model, list(range(10)), fixed)  # its layers hold 22 tokens of zeros
    with pytest.raises(ValueError, match="the state of its tokens alone"):
        blocks_of_past(fixed, BLOCK)


def test_windows_and_wrong_starts_are_refused(model: Any) -> None:
    config = transformers.MistralConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    past = transformers.DynamicCache(config=config)
    computed(transformers.MistralForCausalLM(config).eval(), list(range(12)), past)
    with pytest.raises(ValueError, match="window"):
        blocks_of_past(past, BLOCK)
    whole = computed(model, list(range(8))).past_key_values
    with pytest.raises(ValueError, match="start must be a multiple of 4"):
        blocks_of_past(whole, BLOCK, start=3)


def test_the_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same tokens with and without the cache: True." in done.stdout
