"""Files of weights: which of them make up a model, what lies where in each, and their maps.

A shard is one file, opened once: its size is taken, its header read and its bytes mapped through
the same descriptor, so nobody can put another file in its place in between. Nothing beyond headers
is read. Numbers in a header are checked against the file's size before anything is made of them.
Arrays of NumPy's own formats are read by `numpy_files.py`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from cachecore._safetensors import Place, read_header
from cachecore.errors import ShardError

MOST_HEADER = 100_000_000  # bytes, as in the safetensors library
CHUNK = 1 << 20
FIRST_READ = 1 << 14  # bytes: the header of a few hundred tensors comes with its length
INDEX = ".index.json"
KINDS = (".safetensors", ".npy", ".npz")
_NO_RESERVE = 0x4000 if os.uname().sysname == "Linux" else 0  # mmap has no name for it before 3.13


class Kind(NamedTuple):
    """A dtype of safetensors."""

    name: str
    """In NumPy, or in ml_dtypes."""
    bits: int
    torch: str


DTYPES = {
    "BOOL": Kind("bool", 8, "bool"),
    "F4": Kind("float4_e2m1fn", 4, "float4_e2m1fn_x2"),
    "F6_E2M3": Kind("float6_e2m3fn", 6, ""),
    "F6_E3M2": Kind("float6_e3m2fn", 6, ""),
    "U8": Kind("uint8", 8, "uint8"),
    "I8": Kind("int8", 8, "int8"),
    "F8_E5M2": Kind("float8_e5m2", 8, "float8_e5m2"),
    "F8_E4M3": Kind("float8_e4m3fn", 8, "float8_e4m3fn"),
    "F8_E8M0": Kind("float8_e8m0fnu", 8, "float8_e8m0fnu"),
    "F8_E4M3FNUZ": Kind("float8_e4m3fnuz", 8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": Kind("float8_e5m2fnuz", 8, "float8_e5m2fnuz"),
    "I16": Kind("int16", 16, "int16"),
    "U16": Kind("uint16", 16, "uint16"),
    "F16": Kind("float16", 16, "float16"),
    "BF16": Kind("bfloat16", 16, "bfloat16"),
    "I32": Kind("int32", 32, "int32"),
    "U32": Kind("uint32", 32, "uint32"),
    "F32": Kind("float32", 32, "float32"),
    "C64": Kind("complex64", 64, "complex64"),
    "F64": Kind("float64", 64, "float64"),
    "I64": Kind("int64", 64, "int64"),
    "U64": Kind("uint64", 64, "uint64"),
}
_BITS = {code: kind.bits for code, kind in DTYPES.items()}


class Shard:
    """A file, of weights or an index: its descriptor and its maps. Views keep a map alive."""

    __slots__ = ("_torch_map", "fd", "identity", "map", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self._torch_map: mmap.mmap | None = None
        # A pipe, of which no open should wait for the other end, is refused below.
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode):
            raise ShardError(f"{path}: a file of weights must be a plain file")
        self.size = found.st_size
        self.identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if not self.size:
            raise ShardError(f"{path}: the file is empty")
        try:
            self.map = mmap.mmap(self.fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ)
        except ValueError:  # mmap looks at the size again
            raise ShardError(f"{path}: the file was truncated while it was opened") from None

    @property
    def private_map(self) -> mmap.mmap:
        """A map whose pages become this process's own when they are written, for PyTorch.

        Until then they are the same pages of memory as those of `map`.
        """
        if self._torch_map is None:
            kind, access = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            self._torch_map = mmap.mmap(self.fd, self.size, kind, access)
        return self._torch_map

    @property
    def maps(self) -> list[mmap.mmap]:
        """Those maps that there are."""
        return [self.map] if self._torch_map is None else [self.map, self._torch_map]

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the file, as many as there are."""
        return os.pread(self.fd, size, offset)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


Places = dict[str, Place]


def open_safetensors(path: str) -> tuple[Places, dict[str, Any]]:
    """The places of the tensors of one safetensors file, and its metadata."""
    shard = Shard(path)
    head = shard.read(FIRST_READ, 0)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > shard.size - 8:
        raise ShardError(
            f"{path}: the file is truncated, or no safetensors file: it has {shard.size} bytes, and"
            f" says that its header has {length}"
        )
    if length > MOST_HEADER:
        raise ShardError(f"{path}: its header has {length} bytes; at most {MOST_HEADER} are read")
    header = head[8 : 8 + length]
    if len(header) < length:
        header = shard.read(length, 8)
    try:
        return read_header(header, shard.size, _BITS, shard)
    except ValueError as error:
        raise ShardError(f"{path}: {error}") from None


def open_file(path: str) -> tuple[Places, dict[str, Any]]:
    """The same of one file of any kind, which its name tells."""
    if path.endswith((".npy", ".npz")):
        from cachecore.ml import numpy_files  # these are rare

        return (numpy_files.open_npy if path.endswith(".npy") else numpy_files.open_npz)(path)
    return open_safetensors(path)


def open_all(path: str) -> tuple[Places, dict[str, Any]]:
    """The places and the metadata of a file, of an index of files, or of a folder.

    Raises:
        ShardError: A file is not what it should be, or two have a tensor of the same name.
        OSError: A file cannot be opened.
    """
    if path.endswith(INDEX):
        return _open_index(path)
    if path.endswith(KINDS) or not os.path.isdir(path):
        return open_file(path)
    names = sorted(os.listdir(path))
    indexes = [name for name in names if name.endswith(INDEX)]
    if len(indexes) > 1:
        raise ShardError(f"{path}: there are several indexes, open one: {', '.join(indexes)}")
    if indexes:
        return _open_index(os.path.join(path, indexes[0]))
    places: Places = {}
    metadata: dict[str, Any] = {}
    for name in names:
        if name.endswith(KINDS):
            more, said = open_file(_inside(path, name))
            for twice in places.keys() & more.keys():
                other = os.path.basename(places[twice].shard.path)
                raise ShardError(f"{path}: {other} and {name} both have a tensor {twice!r:.80}")
            places |= more
            metadata = said | metadata
    if not places:
        raise ShardError(f"{path}: there is no tensor; files of weights end in {', '.join(KINDS)}")
    return places, metadata


def _open_index(path: str) -> tuple[Places, dict[str, Any]]:
    """What an index names, of the files beside it."""
    said, files = _read_index(path)
    folder = os.path.dirname(path)
    metadata: dict[str, Any] = {}
    opened: dict[str, Places] = {}
    places: Places = {}
    for name, file in files.items():
        if file not in opened:
            try:
                opened[file], of_file = open_safetensors(_inside(folder, file))
            except FileNotFoundError:
                raise ShardError(f"{path}: {file!r:.80}, which it names, is not there") from None
            metadata = of_file | metadata
        if name not in opened[file]:
            raise ShardError(f"{path}: tensor {name!r:.80} is not in {file}, as it should be")
        places[name] = opened[file][name]
    return places, metadata | said


def _read_index(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The metadata of an index, and the file of each tensor."""
    file = Shard(path)
    if file.size > MOST_HEADER:
        raise ShardError(f"{path}: it has {file.size} bytes; at most {MOST_HEADER} are read")
    try:
        index = json.loads(file.read(file.size, 0), object_pairs_hook=_distinct)
        files, metadata = index["weight_map"], index.get("metadata", {})
        if not isinstance(files, dict) or not isinstance(metadata, dict):
            raise TypeError("weight_map and metadata must be objects")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"{path}: this is no index of safetensors files: {error}") from None
    for file in files.values():
        plain = isinstance(file, str) and file == os.path.basename(file) and "\0" not in file
        if not plain or not file.endswith(".safetensors"):
            raise ShardError(f"{path}: the index names no safetensors file beside it: {file!r:.80}")
    return metadata, files


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _inside(folder: str, name: str) -> str:
    """The path of a file in a folder, to which a link may lead only from within it.

    Or, as the cache of the Hugging Face hub has it, from snapshots/REVISION to the folder blobs
    beside snapshots.
    """
    path = os.path.join(folder, name)
    if os.path.islink(path):
        home = os.path.realpath(folder)
        allowed = {home}
        if os.path.basename(os.path.dirname(home)) == "snapshots":
            allowed.add(os.path.join(os.path.dirname(os.path.dirname(home)), "blobs"))
        if os.path.dirname(os.path.realpath(path)) not in allowed:
            raise ShardError(f"{path}: this is a link that leads out of its folder")
    return path


def shards_of(places: Places) -> Iterator[Shard]:
    """The shards that places refer to, each once."""
    return iter({id(place.shard): place.shard for place in places.values()}.values())


def read_through(shard: Shard) -> None:
    """Read all of a file, and compare the check sums if it is a .npz.

    Not through the map: what cannot be read is an OSError here.
    """
    if shard.path.endswith(".npz"):
        from cachecore.ml.numpy_files import check_sums

        return check_sums(shard)
    for offset in range(0, shard.size, CHUNK):
        if len(shard.read(CHUNK, offset)) != min(CHUNK, shard.size - offset):
            raise ShardError(f"{shard.path}: the file was truncated while it was read")
    return None
