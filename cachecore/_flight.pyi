# Types of _flight.pyx; stubtest compares the two.

from collections.abc import Callable, Hashable
from typing import TypeVar, final

from typing_extensions import disjoint_base

_T = TypeVar("_T")

def _waiters() -> int: ...

@disjoint_base
class Flight: ...

@final
class Flights:
    def run(self, key: Hashable, compute: Callable[[], _T]) -> _T: ...
