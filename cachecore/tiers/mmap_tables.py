"""The tables of a memory-mapped tier, and what is done to them in a transaction that writes.

Three B-trees of LMDB:

    data    key -> expiry, check, then the data
    meta    slot -> frequency, size, clock at the last access, expiry, key
    (main)  the identity of the files, and the clock: accesses so far

A slot is a keyed digest of the key. Slots are spread evenly, so what lies behind a random one is a
random sample, and victims are the worst of such samples by the core's score (cc_policy.h):
frequency / ln(age + e)^3 / size^(3/4), age in accesses, frequencies halved as the core does.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

from cachecore.tiers.base import Item
from cachecore.tiers.mmap_store import Store

LONGEST = 511  # bytes of a key that LMDB takes; longer ones are kept under a digest
HITS = 4096  # latest hits remembered until the next write
HITS_AT_ONCE = 256  # of them taken along by one write
BATCH = 32  # victims at a time at most
SAMPLES = 5  # candidates for each victim
RUN = 8  # neighbours taken for a sample
GAIN = 16  # how many times what comes is evicted when all that is to be free is used
SHEDS = 16  # transactions that evict at a time
EPOCH = 60  # accesses for each entry after which frequencies halve

_HEAD = struct.Struct("<qq")  # expiry in Unix ms (0: never; negative: of a digest), and its check
_META = struct.Struct("<IIQq")  # frequency, size, clock, expiry (_NEVER: never)
CHECK = 0x6D6D_6170_2063_6363
_NEVER = 1 << 62
_MOST = 2**32 - 1
_CLOCK = b"clock"

PAGE = os.sysconf("SC_PAGESIZE")
_SHARED = (PAGE - 16) // 2 - 2  # bytes of a record that shares a page with others

HEAD = _HEAD.size
unpack_head = _HEAD.unpack_from


class Entry(NamedTuple):
    """An item as it is stored."""

    key: bytes
    record: bytes
    expiry: int
    long: bool
    """Kept under a digest. Its expiry is stored negative, so that a key which happens to be the
    same bytes does not find it."""
    frequency: int
    """0 unless it was demoted."""
    size: int
    """Bytes of the file that it takes, some more rather than less."""


def entry(item: Item, frequency: int = 0) -> Entry:
    """How an item is stored."""
    key, data, lifetime = item
    expiry, long = _NEVER, len(key) > LONGEST
    if lifetime is not None:
        expiry = min(int(time.time() * 1000) + lifetime, _NEVER)
    shown = -expiry if long else expiry if expiry < _NEVER else 0
    record = _HEAD.pack(shown, shown ^ CHECK) + data
    key = stored(key)
    beside = 2 * len(key) + _META.size + 32
    size = len(key) + 8 + len(record)
    size = size + size // 2 if size <= _SHARED else -(-(len(record) + 16) // PAGE) * PAGE
    return Entry(key, record, expiry, long, frequency, size + beside)


def stored(key: bytes) -> bytes:
    """The bytes that a key is kept under."""
    return key if len(key) <= LONGEST else blake2b(key, digest_size=32).digest()


def alive(record: bytes, long: bool) -> bool:
    """Whether a record is of such a key, and has not expired."""
    if not whole(record):
        return False
    expiry, _ = unpack_head(record)
    if (expiry < 0) != long:
        return False
    return bool(expiry == 0 or abs(expiry) > time.time() * 1000)


def whole(record: bytes) -> bool:
    """Whether a record's head is as it was written."""
    if len(record) < HEAD:
        return False
    expiry, check = unpack_head(record)
    return bool(expiry ^ check == CHECK)


class Tables:
    """Puts, drops and evicts, within transactions of the store; counts what it does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # A transaction cannot use the pages that it and the one before it have freed. So these
        # are kept out of use, and some for LMDB's list of free ones and for those too scattered.
        self.chunk = min(store.bound // 128, 4 << 20)
        self._spare = store.bound // 24 + 6 * self.chunk + 24 * PAGE
        self._most = store.bound - self._spare
        self.victims = max(1, self.chunk // (2 * PAGE))  # of one transaction
        self._credit, self._ahead = 0.0, 0  # bytes evicted in advance, and how many are to be
        self.hits: deque[bytes] = deque(maxlen=HITS)
        self.counts = dict.fromkeys(("evictions", "expirations", "refused", "damaged"), 0)
        self._pending = Counter[str]()  # of the transaction under way; "owed": bytes to evict

    # --- sizes

    def chunks(self, entries: Iterable[Entry]) -> Iterator[list[Entry]]:
        """Entries in parts for one transaction each, which writes a page of each table, too."""
        part: list[Entry] = []
        dirt = 0
        for each in entries:
            dirt += each.size + 2 * PAGE
            if part and dirt > self.chunk:
                yield part
                part, dirt = [], each.size + 2 * PAGE
            part.append(each)
        if part:
            yield part

    def fits(self, entry: Entry) -> bool:
        """Whether there can be room for an entry at all."""
        return 2 * entry.size <= self._most

    def used(self, txn: Any) -> int:
        """Bytes of the pages in use."""
        pages = 0
        for table in (self._store.data, self._store.meta):
            stat = txn.stat(table)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * PAGE)

    # --- changes

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """A transaction that writes; what it did counts when it is committed."""
        with self._store.writing() as txn:
            done = self._pending = Counter[str]()
            yield txn
        self._credit -= done.pop("owed", 0)
        for name, count in done.items():
            self.counts[name] += count

    def put_all(self, txn: Any, entries: Sequence[Entry], absent: bool = False) -> int:
        """Put entries, those that can fit; how many were put.

        absent: only where there is nothing.
        """
        clock = self._take_hits(txn, HITS_AT_ONCE)
        fitting = [each for each in entries if self.fits(each)]
        self._owe(txn, sum(each.size for each in fitting))
        self._pending["refused"] += len(entries) - len(fitting)
        for each in entries:
            if not absent and not self.fits(each):
                self.drop(txn, each.key)
        count = 0
        for each in fitting:
            count += self._put(txn, each, absent, clock + count + 1)
        txn.put(_CLOCK, (clock + count).to_bytes(8, "little"))
        return count

    def _put(self, txn: Any, entry: Entry, absent: bool, clock: int) -> bool:
        data, meta = self._store.data, self._store.meta
        key, record, expiry, long, frequency, size = entry
        here = False
        if absent or frequency:
            held = txn.get(key, db=data)
            here = held is not None and alive(held, long)
            if here and absent:
                return False
            here = here and _same(held, record)
        slot = self._slot(key)
        known = txn.get(slot, db=meta)
        if known is not None and known[_META.size :] == key:
            before = self._frequency(txn, known, clock)
            frequency = max(before, frequency) if frequency else before + 1
        if not here:
            txn.put(key, record, db=data)
        numbers = _META.pack(min(frequency or 1, _MOST), min(size, _MOST), clock, expiry)
        txn.put(slot, numbers + key, db=meta)
        return True

    def drop(self, txn: Any, key: bytes) -> bytes | None:
        """Take out what is stored under such bytes; its record."""
        record: bytes | None = txn.pop(key, db=self._store.data)
        if record is not None:
            txn.delete(self._slot(key), db=self._store.meta)
        return record

    def touch(self, txn: Any, hits: int = 0) -> None:
        """Write as little as a transaction can; or up to so many of the hits."""
        txn.put(_CLOCK, self._take_hits(txn, hits).to_bytes(8, "little"))

    def _take_hits(self, txn: Any, most: int) -> int:
        """Write down who was asked for; the clock."""
        meta = self._store.meta
        clock = int.from_bytes(txn.get(_CLOCK) or b"", "little") % 2**63
        if not (most and self.hits):
            return clock
        taken = [self.hits.popleft() for _ in range(min(most, len(self.hits)))]
        clock += len(taken)
        for key, hits in Counter(taken).items():
            slot = self._slot(key)
            known = txn.get(slot, db=meta)
            if known is not None and known[_META.size :] == key:
                frequency = min(self._frequency(txn, known, clock) + hits, _MOST)
                _, size, _, expiry = _META.unpack_from(known)
                txn.put(slot, _META.pack(frequency, size, clock, expiry) + key, db=meta)
        return clock

    # --- eviction

    def _owe(self, txn: Any, need: int) -> None:
        """Note how much is to be evicted for what comes: the more, the fewer pages are left.

        Pages are free only once they are all but empty, so their number follows late.
        """
        used = self.used(txn)
        if used + need > self._most:
            scarcity = max(0, used - self._most) / self._spare
            self._pending["owed"] = int(need * (1 + GAIN * scarcity))
            ahead = used * BATCH // max(1, self._entries(txn))
            self._ahead = min(ahead, self._most // 64)

    def forgive(self) -> None:
        """Evict no more of what is owed: the store has begun anew."""
        self._credit = 0.0

    def settle(self) -> None:
        """Evict what is owed, and a batch ahead."""
        if self._credit < 0:
            shed = self.shed(self._ahead - self._credit)
            self._credit = self._credit + shed if shed else 0.0  # of nothing, nothing is owed

    def shed(self, size: float) -> int:
        """Evict, in transactions of a bounded size, what takes so many bytes; how many it was."""
        total = 0
        for _ in range(SHEDS):
            if total >= size:
                break
            with self.writing() as txn:
                shed = self._evict(txn, size - total)
            if not shed:
                break
            total += shed
        return total

    def _evict(self, txn: Any, size: float) -> int:
        clock, evicted, victims = self._take_hits(txn, 0), 0, 0
        while evicted < size and victims < self.victims:
            entries = self._entries(txn)
            if not entries:  # what is left, no slot leads to: of damaged files
                txn.drop(self._store.data, delete=False)
                break
            wanted = math.ceil((size - evicted) * entries / max(1, self.used(txn)))
            wanted = min(wanted, BATCH, self.victims - victims)
            evicted += self._evict_some(txn, wanted, clock)
            victims += wanted
        return evicted

    def _evict_some(self, txn: Any, wanted: int, clock: int) -> int:
        """Evict the worst of a sample, and all of it that has expired; their size."""
        now, expired, others = time.time() * 1000, [], []
        epoch = self._epoch(txn)
        for slot, known in self._sample(txn, max(16, SAMPLES * wanted)).items():
            key = known[_META.size :]
            if len(known) <= _META.size or slot != self._slot(key):
                self._pending["damaged"] += 1
                txn.delete(slot, db=self._store.meta)
                continue
            frequency, size, last, expiry = _META.unpack_from(known)
            if expiry <= now:
                expired.append((0.0, size, key))
            else:
                age = max(0, clock - last)
                worth = (frequency >> min(age // epoch, 32)) or 0.5
                worth /= math.log(age + math.e) ** 3 * max(size, 1) ** 0.75
                others.append((worth, size, key))
        others.sort()
        victims = others[: max(0, wanted - len(expired))]
        self._pending["expirations"] += len(expired)
        self._pending["evictions"] += len(victims)
        for _, _, key in expired + victims:
            if self.drop(txn, key) is None:
                txn.delete(self._slot(key), db=self._store.meta)
        return sum(size for _, size, _ in expired + victims)

    def _sample(self, txn: Any, wanted: int) -> dict[bytes, bytes]:
        """So many slots, or fewer, and what is known of them."""
        found: dict[bytes, bytes] = {}
        with txn.cursor(self._store.meta) as cursor:
            for _ in range(-(-wanted // RUN)):
                if cursor.set_range(os.urandom(8)) or cursor.first():
                    found.update(islice(cursor, RUN))
        return found

    def _slot(self, key: bytes) -> bytes:
        return blake2b(key, digest_size=8, key=self._store.identity).digest()

    def _entries(self, txn: Any) -> int:
        return int(txn.stat(self._store.meta)["entries"])

    def _epoch(self, txn: Any) -> int:
        return max(5000, EPOCH * self._entries(txn))

    def _frequency(self, txn: Any, known: bytes, clock: int) -> int:
        """What is left of a frequency by now."""
        frequency, _, last, _ = _META.unpack_from(known)
        return int(frequency >> min(max(0, clock - last) // self._epoch(txn), 32))


def _same(held: bytes, record: bytes) -> bool:
    """Whether a record need not be written over another, whose lifetime is hardly longer."""
    if len(held) != len(record) or not held.endswith(memoryview(record)[HEAD:]):
        return False
    before, after = (abs(unpack_head(each)[0]) or _NEVER for each in (held, record))
    return -10 <= after - before <= 1000
