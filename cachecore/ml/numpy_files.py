r"""NumPy's own files as weights: an array in a .npy, or several, uncompressed, in a .npz.

    .npy    "\x93NUMPY" | version 2 | length of the header 2 or 4 | header | the array
    .npz    a ZIP archive whose members are .npy files; `np.savez` stores them as they are

The format is that of `numpy.lib.format`, whose functions take a header's text apart; here its
numbers are held against the room there is, before anything is made of them.
"""

from __future__ import annotations

import ast
import io
import math
import os
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from cachecore._safetensors import Place
from cachecore.errors import ShardError
from cachecore.ml.shards import CHUNK, Places, Shard

MOST_HEADER = 10_000  # bytes; NumPy reads no more either: a parser of Python can be overwhelmed
MOST_MEMBERS = 1 << 23  # bytes of an archive's directory: some 100,000 members
_TAIL = 1 << 17  # bytes: more than an archive can have behind its directory
_MAGIC = b"\x93NUMPY"
_UNREADABLE = 0x61  # flags of a member: encrypted, a patch, encrypted strongly
_UTF8 = 0x800  # flag: so its name is written
_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
_STORED_AS = "np.savez stores arrays so that they can be mapped, np.savez_compressed does not"


class Room(NamedTuple):
    """Bytes of a file which one array fills."""

    start: int
    end: int


def open_npy(path: str) -> tuple[Places, dict[str, Any]]:
    """The place of the array of a .npy file, under the name of the file without its ending."""
    shard = Shard(path)
    name = os.path.basename(path).removesuffix(".npy")
    try:
        return {name: _place(shard, Room(0, shard.size))}, {}
    except ValueError as error:
        raise ShardError(f"{path}: {error}") from None


def open_npz(path: str) -> tuple[Places, dict[str, Any]]:
    """The places of the arrays of a .npz file, under the names that `np.load` has for them."""
    shard = Shard(path)
    places: Places = {}
    end = 0
    for member in sorted(_members(shard), key=lambda member: member.header_offset):
        try:
            room = _room(shard, member)
            if member.header_offset < end:
                raise ValueError("it overlaps another member")
            name, end = member.filename.removesuffix(".npy"), room.end
            if name in places:
                raise ValueError("there are two of this name")
            places[name] = _place(shard, room)
        except ValueError as error:
            raise ShardError(f"{path}: member {member.filename!r:.80}: {error}") from None
    return places, {}


class _Bounded(io.FileIO):
    """A file that a hostile archive cannot make anyone read whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_MEMBERS:
            raise ValueError(f"its directory has {size} bytes; at most {MOST_MEMBERS} are read")
        return super().read(_TAIL if size is None or size < 0 else size)


def _members(shard: Shard) -> list[zipfile.ZipInfo]:
    if shard.read(4, 0) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise ShardError(f"{shard.path}: no archive begins here")
    with _Bounded(os.dup(shard.fd)) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.infolist()
        # What zipfile says of archives that nobody wrote on purpose.
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            OSError,
            OverflowError,
            ValueError,
            struct.error,
        ) as error:
            raise ShardError(f"{shard.path}: this archive cannot be read: {error}") from None


def _room(shard: Shard, member: zipfile.ZipInfo) -> Room:
    """Where in the file a member's bytes are, if they stand there as they are."""
    if not member.filename.endswith(".npy"):
        raise ValueError("this is no array: its name does not end in .npy")
    if member.flag_bits & _UNREADABLE:
        raise ValueError("it is encrypted, or a patch of something else")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"it is compressed, and cannot be mapped; {_STORED_AS}")
    if member.compress_size != member.file_size:
        raise ValueError("it is said to be stored as it is, but to have another size then")
    # An archive that lost its start has members before it; and the numbers may be of 64 bits.
    inside = 0 <= member.header_offset < shard.size
    head = shard.read(_LOCAL.size, member.header_offset) if inside else b""
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise ValueError("it does not begin where the directory says")
    _, name, extra = _LOCAL.unpack(head)
    start = member.header_offset + _LOCAL.size + name + extra
    written = member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
    if shard.read(name, member.header_offset + _LOCAL.size) != written:
        raise ValueError("it has another name where it begins")
    return Room(start, start + member.file_size)


def _place(shard: Shard, room: Room) -> Place:
    """The place of an array, from the header at the start of its room."""
    if room.end > shard.size:
        raise ValueError(f"the file is truncated: it has {shard.size} bytes of {room.end}")
    head = shard.read(12, room.start)
    if len(head) < 12 or head[:6] != _MAGIC or head[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError("no array of NumPy begins here, or one of an unknown version")
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    if length > min(MOST_HEADER, room.end - room.start - 8 - width):
        raise ValueError(f"its header has {length} bytes: too many, or more than there are")
    start = room.start + 8 + width + length
    text = shard.read(length, room.start + 8 + width)
    dtype, fortran, shape = _read_header(text.decode("utf-8" if head[6] == 3 else "latin-1"))
    size = math.prod(shape) * dtype.itemsize
    if size != room.end - start:
        raise ValueError(f"its dtype and shape need {size} bytes; there are {room.end - start}")
    return Place(shard, dtype, shape, start, size, fortran)


def _read_header(text: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        said = ast.literal_eval(text)
        descr, fortran, shape = said["descr"], said["fortran_order"], said["shape"]
        dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(descr)
    except (
        *(SyntaxError, ValueError, TypeError, LookupError, AttributeError),
        *(MemoryError, RecursionError, OverflowError),
    ) as error:
        raise ValueError(
            f"its header is damaged, or of Python 2, which np.save of today writes anew: {error}"
        ) from None
    if len(said) != 3 or type(fortran) is not bool or type(shape) is not tuple:
        raise ValueError("its header is not one that NumPy writes")
    if len(shape) > 64 or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"its shape {shape!r:.80} is that of no array")
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
        raise ValueError("its shape has more items than any file")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are pickled: reading them runs their code")
    if dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"its dtype {dtype} is that of no array")
    return dtype, fortran, shape


def check_sums(shard: Shard) -> None:
    """Read a .npz through and compare its members with their CRC-32."""
    for member in _members(shard):
        room = _room(shard, member)
        found = 0
        for start in range(room.start, room.end, CHUNK):
            found = zlib.crc32(shard.read(min(CHUNK, room.end - start), start), found)
        if found != member.CRC:
            raise ShardError(f"{shard.path}: member {member.filename!r:.80} is damaged")
