# Types of _payload.pyx; stubtest compares the two. What is missing is for Cython only.

from typing import Any, final

from typing_extensions import disjoint_base

@disjoint_base
class Codec:
    name: str
    enveloped: bool
    private: bool
    signs: bool
    def encode(self, value: Any) -> bytes: ...
    def decode(self, data: bytes | memoryview) -> Any: ...
    def sign(self, namespace: bytes, *parts: bytes | memoryview) -> bytes: ...

class NativeCodec(Codec): ...

@final
class DefaultCodec(NativeCodec): ...

@final
class ArrayCodec(NativeCodec): ...

@final
class MsgpackCodec(NativeCodec): ...
