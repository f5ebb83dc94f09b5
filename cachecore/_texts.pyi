# Types of _texts.pyx; stubtest compares the two.

from typing import Any

def all_texts(inputs: list[Any]) -> bool: ...
