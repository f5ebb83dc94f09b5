# Types of _fingerprint.pyx; stubtest compares the two.

from collections.abc import Callable
from typing import Any

def encode(
    check: Callable[[object, object, object, object, object], object],
    whole: bool,
    digest: object,
    salt: object,
    domain: object,
    model: object,
    version: object,
    params: object,
    inputs: tuple[object, ...],
) -> bytes: ...
def new_digest(name: object, data: bytes) -> Any: ...
