"""What share of prompts' tokens PrefixCache matches, beside the least recently used leaf.

python asv_bench/ml_prefix_policy.py prints the table of docs/ml/prefixes.md, in seconds. A block is
one token here: only which blocks stay is compared.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator

from cachecore.ml import PrefixCache
from report import markdown

REQUESTS, SYSTEMS = 6_000, 200
SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)  # blocks that fit
TALKING = 60  # conversations that may go on

Node = tuple[int, int]  # a block: the hash of those above it, and its token


def requests(once: float) -> Iterator[list[int]]:
    """Yield prompts: a share `once` of documents read once, else turns of conversations."""
    draw = random.Random(1)
    weights = [1 / rank for rank in range(1, SYSTEMS + 1)]
    systems = [[(s << 16) + at for at in range(draw.randint(10, 60))] for s in range(SYSTEMS)]
    fresh = 1 << 24
    talks: list[list[int]] = []
    for _ in range(REQUESTS):
        kind = draw.random()
        new = kind >= once and not (talks and kind < once + 0.5 * (1 - once))
        prompt, more = [], draw.randint(20, 120)
        if new:
            talks.append(list(draw.choices(systems, weights)[0]))
        if kind >= once:
            prompt = talks[-1] if new else draw.choice(talks[-TALKING:])
            more = draw.randint(2, 10)
        prompt.extend(range(fresh, fresh + more))
        fresh += more
        yield list(prompt)


class LeastRecentLeaf:
    """The same blocks, of which the leaf leaves that was asked for longest ago."""

    def __init__(self, size: int) -> None:
        self._size, self._tick = size, 0
        self._used: dict[Node, int] = {}  # when last
        self._parents: dict[Node, Node | None] = {}
        self._children: dict[Node, int] = {}
        self._leaves: list[tuple[int, Node]] = []  # a heap; some are leaves no more

    def ask(self, prompt: list[int]) -> int:
        """How many blocks of a prompt are here; it is here afterwards, as far as it fits."""
        self._tick += 1
        path: list[Node] = []
        for token in prompt:
            path.append((hash(path[-1]) if path else 0, token))
        found = next((at for at, node in enumerate(path) if node not in self._used), len(path))
        self._used.update(dict.fromkeys(path[:found], self._tick))
        for at in range(found, len(path)):
            if len(self._used) == self._size and not self._evict(set(path)):
                break
            node, parent = path[at], path[at - 1] if at else None
            self._used[node], self._children[node], self._parents[node] = self._tick, 0, parent
            if parent is not None:
                self._children[parent] += 1
        here = [node for node in path if node in self._used]
        heapq.heappush(self._leaves, (self._tick, here[-1]))
        return found

    def _evict(self, kept: set[Node]) -> bool:
        while self._leaves:
            used, node = heapq.heappop(self._leaves)
            if self._used.get(node) != used or self._children[node] or node in kept:
                continue
            del self._used[node], self._children[node]
            parent = self._parents.pop(node)
            if parent is not None:
                self._children[parent] -= 1
                heapq.heappush(self._leaves, (self._used[parent], parent))
            return True
        return False


def matched(prompts: list[list[int]], size: int) -> float:
    """The share that a PrefixCache of as many blocks matches."""
    one = PrefixCache(block=1, max_bytes="1MB")
    one.put([0], [b""])
    cache = PrefixCache(block=1, max_bytes=one.nbytes * size)
    for prompt in prompts:
        cache.match(prompt)
        cache.put(prompt, [b""] * len(prompt))
    return cache.stats().hit_ratio


def main() -> None:
    """Play both on both streams."""
    table = []
    streams = [list(requests(once)) for once in (0, 0.3)]
    for size in SIZES:
        cells = [f"{size:,}"]
        for prompts in streams:
            lru = LeastRecentLeaf(size)
            found = sum(map(lru.ask, prompts)) / sum(map(len, prompts))
            cells += [f"{found:.2f}", f"{matched(prompts, size):.2f}"]
        table.append(cells)
    print(markdown(HEADINGS, table))


HEADINGS = [
    "blocks", "conversations: LRU", "PrefixCache", "30 % documents read once: LRU", "PrefixCache",
]  # fmt: skip

if __name__ == "__main__":
    main()
