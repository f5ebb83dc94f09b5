# Types of _safetensors.pyx; stubtest compares the two.

from typing import Any, final

@final
class Place:
    def __init__(
        self,
        shard: Any,
        dtype: Any,
        shape: tuple[int, ...],
        offset: int,
        nbytes: int,
        fortran: bool = False,
    ) -> None: ...
    @property
    def shard(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def offset(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def fortran(self) -> bool: ...

def read_header(
    header: bytes, size: int, bits: dict[str, int], shard: Any
) -> tuple[dict[str, Place], dict[str, str]]: ...
