# Types of _memo.pyx; stubtest compares the two.

from collections.abc import Callable, Coroutine, Hashable
from types import GenericAlias
from typing import (
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    final,
    overload,
)

from cachecore._core import Cache

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_R = TypeVar("_R", covariant=True)
_V = TypeVar("_V")
_S = TypeVar("_S")

class CacheInfo(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int

# _P: the parameters of the function, _R: what a call returns, _V: what is kept. They differ for
# coroutine functions, whose calls return a Coroutine[Any, Any, _V].
@final
class Memoized(Generic[_P, _R, _V]):
    __name__: str
    __qualname__: str
    __wrapped__: Callable[_P, _R]
    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @property
    def cache(self) -> Cache[Hashable, _V]: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: Memoized[Concatenate[_S, _Q], _R, _V], instance: _S, owner: type | None = None, /
    ) -> _Bound[_Q, _R, _V]: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_key(self, /, *args: _P.args, **kwargs: _P.kwargs) -> Hashable: ...
    def cache_invalidate(self, /, *args: _P.args, **kwargs: _P.kwargs) -> bool: ...
    def __reduce__(self) -> str: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any) -> Self: ...

# A bound method: it has the attributes of its function, whose cache_key and cache_invalidate take
# the instance as well.
class _Bound(Generic[_P, _R, _V]):
    __name__: str
    __qualname__: str
    __self__: Any
    @property
    def __func__(self) -> Memoized[..., _R, _V]: ...
    @property
    def cache(self) -> Cache[Hashable, _V]: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_key(self, /, *args: Any, **kwargs: Any) -> Hashable: ...
    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool: ...

class _Decorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[_P, Coroutine[Any, Any, _V]], /
    ) -> Memoized[_P, Coroutine[Any, Any, _V], _V]: ...
    @overload
    def __call__(self, function: Callable[_P, _V], /) -> Memoized[_P, _V, _V]: ...

@overload
def memoize(
    maxsize: Callable[_P, Coroutine[Any, Any, _V]],
    *,
    max_bytes: int | str | None = None,
    ttl: float | None = None,
    key: Callable[_P, Hashable] | None = None,
    typed: bool = False,
) -> Memoized[_P, Coroutine[Any, Any, _V], _V]: ...
@overload
def memoize(
    maxsize: Callable[_P, _V],
    *,
    max_bytes: int | str | None = None,
    ttl: float | None = None,
    key: Callable[_P, Hashable] | None = None,
    typed: bool = False,
) -> Memoized[_P, _V, _V]: ...
@overload
def memoize(
    maxsize: int | None = 128,
    *,
    max_bytes: int | str | None = None,
    ttl: float | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
) -> _Decorator: ...
