# Types of _bench.pyx; stubtest compares the two.

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

def bucket_bounds() -> npt.NDArray[np.int64]: ...

@disjoint_base
class Load:
    issued: int
    answered: int
    hits: int
    misses: int
    errors: int
    received: int
    lost: int
    first_error: bytes
    counts: npt.NDArray[np.int64]
    def __init__(
        self,
        fds: Sequence[int],
        keys: npt.NDArray[np.int64],
        gets: npt.NDArray[np.uint8],
        sizes: npt.NDArray[np.int32],
        prefix: bytes,
        *,
        pipeline: int,
        limit: int | None = None,
    ) -> None: ...
    def run(self, seconds: float) -> bool: ...
