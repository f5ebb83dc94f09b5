# Types of _arrays.pyx; stubtest compares the two. Its functions are for Cython only.

import sys
from typing import final

@final
class FrozenBytes:
    def __new__(cls, size: int) -> FrozenBytes: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
