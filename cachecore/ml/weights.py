"""WeightStore: the tensors of a model's files, mapped, as read-only arrays without a copy."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cachecore._core import Cache
from cachecore._safetensors import Place
from cachecore.ml import views
from cachecore.ml.residency import Keeper, Resident, read_in, residency
from cachecore.ml.shards import Places, open_all, read_through, shards_of
from cachecore.ml.views import Array
from cachecore.rows import path_of
from cachecore.settings import size_in_bytes

_ENTRY = 64  # bytes that `Cache` counts for an entry, beyond its key and value


@dataclass(frozen=True, slots=True)
class WeightStats:
    """What a store holds and keeps in memory. Counts are of this process."""

    tensors: int
    nbytes: int
    """Bytes of all tensors."""
    pinned: int
    """Tensors that are pinned."""
    pinned_bytes: int
    hot: int
    """Tensors that the budget keeps, besides the pinned ones."""
    hot_bytes: int
    locked_bytes: int
    """Of the pinned and the hot: locked in memory."""
    unlocked_bytes: int
    """Of the pinned and the hot: read in, but RLIMIT_MEMLOCK did not let us lock them."""
    hits: int
    """Accesses to tensors that were hot; without a budget nobody counts."""
    misses: int
    """Accesses to tensors that were neither hot nor pinned."""
    drops: int
    """Tensors that were let go."""
    dropped_bytes: int


class WeightStore(Mapping[str, Array]):
    """Tensors of safetensors, .npy and .npz files: a mapping of names to read-only arrays.

    The arrays are views on the mapped files: nothing is read before it is touched, and the pages
    are shared with all processes that map the same files. Views stay valid after `close`, as long
    as they live. All methods may be called from several threads, and after a fork.

    A file must not be truncated or written to while it is mapped: what a view shows would change,
    and touching a page that is gone ends the process with SIGBUS. Put a new file in the old one's
    place with `os.replace` instead; a store that is open goes on with the old one.

    Args:
        path: A file (.safetensors, .npy, or .npz whose members are stored as they are), an index
            (.safetensors.index.json), or a folder: of what its index names if it has one, else of
            all such files in it.
        budget: Bytes ("4GB") of tensors to keep in memory, under the policy of `Cache`: those that
            this process asks for most are read in and locked, as far as RLIMIT_MEMLOCK lets us; of
            the others pages are let go. At least as large as the largest tensor. None: the kernel
            decides.
        verify: Read the files through once, and compare the check sums of .npz members. The other
            formats have none: it shows that the files can be read.

    Raises:
        ShardError: A ValueError: a file is damaged, truncated, hostile, or of another kind.
        OSError: A file cannot be opened or read.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[Any],
        *,
        budget: int | str | None = None,
        verify: bool = False,
    ) -> None:
        self._path = os.path.abspath(os.fsdecode(path_of(path)))
        self._budget = None if budget is None else size_in_bytes(budget, "budget")
        if not isinstance(verify, bool):
            raise TypeError(f"verify must be a bool, not {type(verify).__name__}")
        places, self._metadata = open_all(self._path)
        self._places: Places | None = places
        self._views: dict[str, Array] = {}  # those that were asked for
        self._free: dict[str, Array] = {}  # of these, those whose uses nobody counts
        self._pinned: dict[str, Place] = {}
        self._hot: Cache[str, int] | None = None
        self._keeper = Keeper()
        self._mutex, self._process = threading.RLock(), os.getpid()
        self._drops = self._dropped_bytes = 0
        if verify:
            for shard in shards_of(places):
                read_through(shard)
        if self._budget is not None:
            # A value is its own size, so that an entry counts as the tensor's bytes and no more.
            self._hot = Cache(max_bytes=self._room({}), getsizeof=int, on_evict=self._drop)

    # --- a mapping

    def __getitem__(self, name: str) -> Array:
        view = self._free.get(name)
        return self._find(name) if view is None else view

    def __iter__(self) -> Iterator[str]:
        return iter(self._open())

    def __len__(self) -> int:
        return len(self._open())

    def __contains__(self, name: object) -> bool:
        return name in self._open()

    __eq__ = object.__eq__  # as mappings, two stores would compare arrays
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        held = "closed" if self._places is None else f"{len(self)} tensors, {self.nbytes:,} bytes"
        return f"<WeightStore of {self._path!r}: {held}>"

    # --- what a tensor is

    @property
    def metadata(self) -> dict[str, Any]:
        """What the files say of themselves; where several say it, the index and the first count."""
        return dict(self._metadata)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(place.nbytes for place in self._open().values())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; KeyError when there is none of the name."""
        return self._place(name).shape

    def dtype(self, name: str) -> str:
        """The name of a tensor's dtype in NumPy, or in ml_dtypes, which need not be there."""
        return views.dtype_name(self._place(name))

    def raw(self, name: str) -> Array:
        """A tensor's bits, read-only and without a copy, whatever package its dtype needs.

        Items of 1, 2, 4 or 8 bytes are unsigned integers of the tensor's shape. Others, packed ones
        (float4, float6) among them, are its bytes: uint8 in one dimension.
        """
        self._use(name)
        return views.bits(self._place(name))

    def torch(self, name: str) -> Any:
        """A tensor for PyTorch, without a copy: bfloat16 and float8 included.

        It lies on a map of its own, which shares the pages of the file until they are written:
        what is written to such tensors is this process's own, and neither the file nor the arrays
        of this store show it; other tensors from this method do. float4 has two items in each of
        its own, along the last dimension.

        Raises:
            TypeError: PyTorch has no such dtype.
            ValueError: A row of float4 ends within a byte.
        """
        self._use(name)
        with self._guard():  # else two threads might make two maps
            return views.tensor(name, self._place(name))

    # --- what is in memory

    def pin(self, names: Iterable[str]) -> None:
        """Read tensors in, lock them as far as RLIMIT_MEMLOCK allows, and keep them.

        Returns when they are in memory. What could not be locked is counted, see `stats`. Pinned
        tensors take their room from the budget.

        Raises:
            KeyError: There is no such tensor.
            ValueError: The budget would be too small for the largest of the other tensors.
            OSError: A file cannot be read.
        """
        new = {name: self._place(name) for name in _names(names)}
        with self._guard():
            self._room(self._pinned | new)  # or nothing is read
        for place in new.values():  # without the lock: others use the store meanwhile
            read_in(place)
        with self._guard():
            pinned = self._pinned | new
            room = self._room(pinned)
            begun: list[Place] = []
            try:
                for place in new.values():
                    if place not in self._keeper.kept:
                        begun.append(place)
                    self._keeper.keep(place, wait=True)
            except BaseException:  # an interrupt
                for place in begun:
                    self._keeper.release(place)
                raise
            self._pinned = pinned
            self._free |= {name: self._views[name] for name in new.keys() & self._views.keys()}
            if self._hot is not None:
                self._hot.delete_many(new)
                self._hot.resize(max_bytes=max(room, 1))  # 1: all are pinned

    def unpin(self, names: Iterable[str]) -> None:
        """Pin tensors no longer. They stay in memory until the budget, or the kernel, needs it."""
        names = _names(names)
        with self._guard():
            for name in names:
                self._place(name)
            for name in names:
                place = self._pinned.pop(name, None)
                if place is not None and self._hot is not None:
                    self._free.pop(name, None)
                    self._hot.resize(max_bytes=self._room(self._pinned))
                    self._hot[name] = _value(name, place)
                elif place is not None:
                    self._keeper.release(place)

    def residency(self) -> dict[str, Resident]:
        """How many bytes of each tensor are in memory, for whatever process, of how many.

        Raises:
            PermissionError: The kernel tells it only to who owns the files or may write to them.
        """
        return residency(self._open())

    def stats(self) -> WeightStats:
        """What the store holds and keeps."""
        with self._guard():
            kept = self._keeper.kept
            locked = sum(place.nbytes for place, is_locked in kept.items() if is_locked)
            hot = None if self._hot is None else self._hot.stats()
            pinned_bytes = sum(place.nbytes for place in self._pinned.values())
            kept_bytes = sum(place.nbytes for place in kept)
            return WeightStats(
                tensors=len(self),
                nbytes=self.nbytes,
                pinned=len(self._pinned),
                pinned_bytes=pinned_bytes,
                hot=len(kept) - len(self._pinned),
                hot_bytes=kept_bytes - pinned_bytes,
                locked_bytes=locked,
                unlocked_bytes=kept_bytes - locked,
                hits=hot.hits if hot else 0,
                misses=hot.misses if hot else 0,
                drops=self._drops,
                dropped_bytes=self._dropped_bytes,
            )

    # --- its life

    def close(self) -> None:
        """Unlock what is locked and close the files. Views stay valid; closing twice is fine."""
        with self._guard():
            self._places, self._hot = None, None
            self._views, self._free, self._pinned = {}, {}, {}
            for place in list(self._keeper.kept):
                self._keeper.release(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._path, self._budget, _identities(self._open()))

    def _open(self) -> Places:
        if self._places is None:
            raise ValueError("the store is closed")
        return self._places

    def _place(self, name: str) -> Place:
        return self._open()[name]

    def _guard(self) -> threading.RLock:
        """The lock of what is kept; another one after a fork, which may come while it is held."""
        if self._process != os.getpid():
            self._mutex, self._process = threading.RLock(), os.getpid()
            self._keeper.forget_locks()
        return self._mutex

    def _room(self, pinned: Mapping[str, Place]) -> int:
        """The part of the budget for what is not pinned."""
        if self._budget is None:
            return 0
        needed = max(
            (
                _overhead(name) + _value(name, place)
                for name, place in self._open().items()
                if name not in pinned
            ),
            default=0,
        )
        taken = sum(place.nbytes for place in pinned.values())
        if self._budget < taken + needed:
            raise ValueError(
                f"budget must be at least {taken + needed} bytes, for what is pinned and the"
                f" largest of the other tensors, not {self._budget}"
            )
        return self._budget - taken

    def _find(self, name: str) -> Array:
        self._use(name)
        view = self._views.get(name)
        if view is None:
            view = views.array(name, self._place(name))
            with self._guard():
                self._open()  # or the view would outlive a close from elsewhere in here
                view = self._views.setdefault(name, view)
                if self._budget is None or name in self._pinned:
                    self._free[name] = view
        return view

    def _use(self, name: str) -> None:
        """Tell the policy of a use; have the tensor read in and kept, at the cost of others."""
        hot = self._hot
        if hot is None or name in self._pinned or hot.get(name) is not None:
            return
        with self._guard():
            place = self._place(name)
            if name not in self._pinned:
                self._keeper.keep(place, wait=False)
                hot[name] = _value(name, place)

    def _drop(self, name: str, value: int, reason: str) -> None:
        with self._guard():
            self._dropped_bytes += self._keeper.drop(self._place(name))
            self._drops += 1


def _names(names: Iterable[str]) -> list[str]:
    if isinstance(names, (str, bytes)) or not hasattr(type(names), "__iter__"):
        raise TypeError(f"names must be an iterable of names, not {type(names).__name__}")
    return list(dict.fromkeys(names))


def _overhead(name: str) -> int:
    """Bytes that `Cache` counts for an entry beside its value."""
    return sys.getsizeof(name) + _ENTRY


def _value(name: str, place: Place) -> int:
    return max(0, place.nbytes - _overhead(name))


def _identities(places: Places) -> list[tuple[int, ...]]:
    return [shard.identity for shard in shards_of(places)]


def _reopen(
    kind: type[WeightStore], path: str, budget: int | None, identities: list[tuple[int, ...]]
) -> WeightStore:
    """Open a store in another process; only of the very files that it was made of."""
    store = kind(path, budget=budget)
    if _identities(store._open()) != identities:
        raise ValueError(f"{path}: other files are there than when the store was pickled")
    return store
