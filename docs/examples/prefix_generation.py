"""A language model answers users who share a system prompt: with and without a PrefixCache.

    python docs/examples/prefix_generation.py [--plot prefixes.svg]

A Llama of random weights, computed by PyTorch on the processor, generates greedily. Six users take
turns in conversations of three questions each. All prompts begin with the same system prompt, and
those of one conversation with all that was said in it before. Both sides must generate the same
tokens. Prints how long each side takes to the first token of each answer, and draws it where
matplotlib is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from cachecore.ml import PrefixCache, blocks_of_past, past_of_blocks

USERS, TURNS = 6, 3
SYSTEM, QUESTION, ANSWER = 1_000, 40, 16  # tokens
WORDS = 8_000  # in the vocabulary
BLOCK = 16


@dataclass
class Answer:
    """What was generated for a prompt, and how long it took."""

    tokens: list[int]
    to_first: float  # seconds
    total: float
    matched: int = 0  # tokens of the prompt whose state was in the cache


def model_of(seed: int) -> Any:
    """A small Llama of random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=256, intermediate_size=704, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4_096,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def generate(model: Any, prompt: list[int], cache: PrefixCache | None) -> Answer:
    """Generate greedily. The last token of a prompt is always computed: it says what comes next."""
    start = time.perf_counter()
    found = None if cache is None else cache.match(prompt[:-1])
    past: Any = DynamicCache() if found is None else past_of_blocks(found.blocks)
    rest = prompt[past.get_seq_length() :]
    tokens: list[int] = []
    to_first = 0.0
    while len(tokens) < ANSWER:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([rest]), past_key_values=past, logits_to_keep=1)
        rest = [int(out.logits[0, -1].argmax())]
        tokens += rest
        to_first = to_first or time.perf_counter() - start
    if cache is not None and found is not None:
        said = [*prompt, *tokens[:-1]]  # the last one's state was not computed
        cache.put(said, [*found.blocks, *blocks_of_past(past, BLOCK, found.length)])
    total = time.perf_counter() - start
    return Answer(tokens, to_first, total, found.length if found else 0)


def converse(model: Any, cache: PrefixCache | None) -> list[tuple[int, Answer]]:
    """Play all conversations, in turns; the length of each prompt and the answer."""
    random = np.random.default_rng(0)
    system = random.integers(WORDS, size=SYSTEM).tolist()
    prompts = [list(system) for _ in range(USERS)]
    answers = []
    for _ in range(TURNS):
        for prompt in prompts:
            prompt.extend(random.integers(WORDS, size=QUESTION).tolist())
            answers.append((len(prompt), generate(model, prompt, cache)))
            prompt.extend(answers[-1][1].tokens)
    return answers


def plot(without: list[float], with_cache: list[float], path: str) -> None:
    """Draw the time to the first token of each answer, in milliseconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    numbers = np.arange(1, len(without) + 1)
    axes.bar(numbers - 0.2, without, 0.4, label="every prompt computed in full", color="#b0b7c3")
    axes.bar(numbers + 0.2, with_cache, 0.4, label="with a PrefixCache", color="#1f6feb")
    for turn in range(1, TURNS):
        axes.axvline(turn * USERS + 0.5, ymax=0.88, color="#888888", linewidth=0.8, linestyle=":")
    for turn in range(TURNS):
        middle = turn * USERS + (USERS + 1) / 2
        axes.annotate(f"question {turn + 1} of each user", (middle, 1.01), ha="center",
                      xycoords=("data", "axes fraction"), fontsize=9)  # fmt: skip
    axes.set_xticks(numbers)
    axes.set_xlabel("request")
    axes.set_ylabel("ms to the first token")
    axes.set_ylim(0, 1.25 * max(without))
    axes.legend(loc="upper left", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    """Play both sides, compare, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plot", default="prefixes.svg", help="where to draw; '' for nowhere")
    options = parser.parse_args()
    model = model_of(0)
    generate(model, list(range(SYSTEM)), None)  # the first call is slower
    full = converse(model, None)
    cache = PrefixCache(block=BLOCK, max_bytes="256MB", model="llama-random", version="0")
    cached = converse(model, cache)

    print("request  prompt tokens  matched  first token, ms: in full  with cache")
    for number, ((size, plain), (_, ours)) in enumerate(zip(full, cached, strict=True), 1):
        print(f"{number:7} {size:14} {ours.matched:8} {1e3 * plain.to_first:25.1f} "
              f"{1e3 * ours.to_first:11.1f}")  # fmt: skip
    same = all(
        plain.tokens == ours.tokens for (_, plain), (_, ours) in zip(full, cached, strict=True)
    )
    assert same, "an answer differs"
    counts = cache.stats()
    before, after = (sum(answer.to_first for _, answer in side) for side in (full, cached))
    whole, less = (sum(answer.total for _, answer in side) for side in (full, cached))
    print(f"\nThe same tokens with and without the cache: {same}.")
    print(f"Prefill: {before:.2f} s in full, {after:.2f} s with the cache, "
          f"{1 - after / before:.0%} saved; answers in all: {whole:.2f} s and {less:.2f} s.\n"
          f"{counts.hit_ratio:.0%} of the prompts' tokens were matched; {counts.blocks} blocks "
          f"take {counts.bytes / 2**20:.1f} MB.")  # fmt: skip
    if options.plot and importlib.util.find_spec("matplotlib"):
        plot([1e3 * answer.to_first for _, answer in full],
             [1e3 * answer.to_first for _, answer in cached], options.plot)  # fmt: skip
        print(f"Drawn: {options.plot}")


if __name__ == "__main__":
    main()
