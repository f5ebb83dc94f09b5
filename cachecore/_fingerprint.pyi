# Types of _fingerprint.pyx; stubtest compares the two.

def encode(
    whole: bool,
    digest: str,
    salt: bytes | str,
    domain: str,
    model: str,
    version: str | int,
    params: object,
    inputs: tuple[object, ...],
) -> bytes: ...
