"""The GGUF container, as far as an importance matrix needs it, read more strictly than its own reader.

A file is a magic, a version, keys with typed values, a table of tensors, and their bytes. Its own Python reader loops
as often as a count in the file says, whether or not there are bytes for it; here every count is held against the bytes
that are left. Layout: ggml, ``docs/gguf.md``, versions 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.errors import DataError
from dfmeta.records._foreign_bytes import Cursor

MAGIC = b"GGUF"
ALIGNMENT = 32
NAME_LIMIT = 1024
TEXT_LIMIT = 16 * 2**20
RANK_LIMIT = 4
F32 = 0
# Bytes of each plain type by its number: u8, i8, u16, i16, u32, i32, f32, bool, u64, i64, f64.
_PLAIN = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UNSIGNED = frozenset({0, 2, 4, 10})
UINT32, STRING, ARRAY = 4, 8, 9

Setting = int | str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One line of the table.

    Attributes:
        shape: as numpy has it: the axis that lies together last.
        type: ggml's number of the element type; 0 is float32.
        offset: of its bytes, from the start of all tensors' bytes.
    """

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """A file.

    Attributes:
        where: what to call it.
        settings: its keys; None for a value of a type that is not looked at.
        tensors: by name.
        raw: all of its bytes.
        start: where the tensors' bytes begin.
    """

    where: str
    settings: Mapping[str, Setting]
    tensors: Mapping[str, Tensor]
    raw: bytes
    start: int

    def array(self, name: str) -> NDArray[np.float32]:
        """A float32 tensor.

        Raises:
            DataError: another type, or bytes that are not there.
        """
        tensor = self.tensors[name]
        if tensor.type != F32:
            found = f"element type {tensor.type}"
            raise DataError(f"{self.where}: tensor {name!r}", found, f"{F32}, which is float32")
        size, begin = math.prod(tensor.shape), self.start + tensor.offset
        if begin + 4 * size > len(self.raw):
            found = f"bytes {begin} to {begin + 4 * size} of {len(self.raw)}"
            raise DataError(f"{self.where}: tensor {name!r}", found, "bytes inside of the file", "Fetch it again.")
        return np.frombuffer(self.raw, "<f4", size, begin).reshape(tensor.shape)


def parse(raw: bytes, where: str) -> Container:
    """Read a file's keys and its table of tensors.

    Raises:
        DataError: another format or version, a count that the bytes contradict, or a name that is there twice.
    """
    cursor = Cursor(raw, where)
    if raw[:4] != MAGIC:
        raise DataError(where, f"the first bytes {raw[:4]!r}", f"{MAGIC!r}", "Give a GGUF file, or a .dat file.")
    cursor.skip(4, "the magic")
    version = cursor.unsigned(4, "the version")
    if version not in (2, 3):
        found = f"version {version}" if version & 0xFFFF else "numbers of the other byte order"
        raise DataError(where, found, "GGUF 2 or 3, little-endian", "Write it again with a current llama.cpp.")
    tensor_count, key_count = (cursor.unsigned(8, "a count") for _ in range(2))
    settings: dict[str, Setting] = {}
    for _ in range(_counted(cursor, key_count, 13, "keys")):
        _add(settings, _name(cursor), _setting(cursor, cursor.unsigned(4, "a type")), where)
    tensors: dict[str, Tensor] = {}
    for _ in range(_counted(cursor, tensor_count, 24, "tensors")):
        _add(tensors, _name(cursor), _tensor(cursor), where)
    alignment = settings.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise DataError(f"{where}: general.alignment", repr(alignment), "a power of 2 from 8 to 65536")
    start = -(-cursor.place // alignment) * alignment
    container = Container(where, settings, tensors, raw, start)
    _require_apart(container, alignment)
    return container


def _counted(cursor: Cursor, count: int, least: int, what: str) -> int:
    """The count, if there can be as many of at least ``least`` bytes each."""
    if count > cursor.left // least:
        raise DataError(f"{cursor.where}, header", f"{count} {what} in {cursor.left} bytes", f"{what} that are there")
    return count


def _add(known: dict[str, Setting] | dict[str, Tensor], name: str, value: Setting | Tensor, where: str) -> None:
    if name in known:
        raise DataError(f"{where}: {name!r}", "it twice", "each name once", "Fetch the file again.")
    known[name] = value  # type: ignore[assignment]


def _name(cursor: Cursor) -> str:
    return cursor.text(8, NAME_LIMIT, "a name")


def _setting(cursor: Cursor, kind: int) -> Setting:
    if kind == STRING:
        return cursor.text(8, TEXT_LIMIT, "a text")
    if kind in _PLAIN:
        value = cursor.unsigned(_PLAIN[kind], "a value")
        return value if kind in _UNSIGNED else None
    if kind != ARRAY:
        raise DataError(f"{cursor.where}, byte {cursor.place}", f"a value of type {kind}", "a type from 0 to 12")
    inner, count = cursor.unsigned(4, "a type"), cursor.unsigned(8, "a count")
    if inner == STRING:
        return tuple(cursor.text(8, TEXT_LIMIT, "a text") for _ in range(_counted(cursor, count, 8, "texts")))
    if inner not in _PLAIN:
        raise DataError(f"{cursor.where}, byte {cursor.place}", f"an array of type {inner}", "numbers or texts")
    cursor.skip(_counted(cursor, count, _PLAIN[inner], "values") * _PLAIN[inner], "an array")
    return None


def _tensor(cursor: Cursor) -> Tensor:
    rank = cursor.unsigned(4, "a number of axes")
    if rank > RANK_LIMIT:
        raise DataError(f"{cursor.where}, byte {cursor.place - 4}", f"{rank} axes", f"at most {RANK_LIMIT}")
    # The container lists the axis that lies together first.
    shape = tuple(cursor.unsigned(8, "a size") for _ in range(rank))[::-1]
    kind, offset = cursor.unsigned(4, "a type"), cursor.unsigned(8, "an offset")
    if math.prod(max(size, 1) for size in shape) >= 2**60:
        raise DataError(f"{cursor.where}, byte {cursor.place}", f"a shape {list(shape)}", "sizes of a file's scale")
    return Tensor(shape, kind, offset)


def _require_apart(container: Container, alignment: int) -> None:
    """Refuse tensors that share bytes: a small file could stand for more than fits into memory."""
    placed = sorted(
        (tensor.offset, tensor.offset + 4 * math.prod(tensor.shape), name)
        for name, tensor in container.tensors.items()
        if tensor.type == F32
    )
    end, before = 0, ""
    for start, stop, name in placed:
        where = f"{container.where}: tensor {name!r}"
        if start % alignment:
            raise DataError(where, f"offset {start}", f"a multiple of {alignment}", "Fetch the file again.")
        if start < end:
            raise DataError(where, f"bytes that {before!r} has too", "its own", "Fetch the file again.")
        end, before = stop, name
