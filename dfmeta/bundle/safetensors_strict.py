"""The safetensors container, read more strictly than its reference reader, and written byte for byte alike.

A file is 8 little-endian bytes that hold the header's length, the header (JSON), and the tensors' bytes. The
reference reader takes duplicate names, unknown keys and leading white space; here each is a problem, because
two readers that disagree about a file are how one of them is fooled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfmeta.errors import Problem, SchemaError
from dfmeta.schema import json_strict
from dfmeta.schema.grammar import TENSOR_NAME_BYTES
from dfmeta.schema.json_strict import join, shown

HEADER_LIMIT = 16 * 2**20
TENSOR_LIMIT = 262_144
RANK_LIMIT = 8
WEIGHT_NAME_BYTES = 512
LENGTH_BYTES = 8
METADATA_KEY = "dfmeta"

# Bytes of one element, for every dtype that a weights file may hold.
ITEM_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
"""The dtypes of a sidecar, as NumPy's: nothing a reader would have to convert."""

_CODES = {dtype: code for code, dtype in NUMPY_DTYPES.items()}
# The reference reader takes -0 for a float, so that a file with it would be one tensor here and none there.
_LIMITS = json_strict.Limits(
    size=HEADER_LIMIT, depth=4, array_items=64, object_members=TENSOR_LIMIT + 1, minus_zero=False
)
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: its type, its shape, and where its bytes lie, counted from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says it holds.

    Attributes:
        size: bytes before the first tensor: the length field and the header.
        tensors: by name, in the order of their bytes.
        metadata: the ``__metadata__`` map.
    """

    size: int
    tensors: dict[str, Entry]
    metadata: dict[str, str]


def header_length(prefix: bytes, file_size: int) -> int | Problem:
    """The length that the first 8 bytes state, if a file of this size can hold it."""
    if len(prefix) < LENGTH_BYTES:
        return Problem("header", "truncated", f"{file_size} bytes", f"at least {LENGTH_BYTES + 2}")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    most = min(HEADER_LIMIT, file_size - LENGTH_BYTES)
    if not 2 <= length <= most:
        return Problem("header", "header-length", f"a header of {length} bytes", f"2 to {most} bytes")
    return length


def parse_header(raw_header: bytes, file_size: int, where: str = "header", sidecar: bool = True) -> Header:
    """Check and read a header.

    Args:
        raw_header: the JSON text, without the 8 bytes before it.
        file_size: bytes of the whole file.
        where: what to call the file in messages.
        sidecar: hold to dfmeta's own rules (dtypes, names, one metadata key) and not only to the container's,
            which is all that can be asked of a weights file.

    Raises:
        SchemaError: with every problem found.
    """
    if not raw_header.startswith(b"{"):
        problem = Problem("header", "header-start", shown(raw_header[:1]), "'{' as its first byte")
        raise SchemaError(where, [problem])
    document = json_strict.parse(raw_header, where, _LIMITS)
    if not isinstance(document, dict):
        raise SchemaError(where, [Problem("header", "wrong-type", shown(document), "an object")])
    metadata = document.pop("__metadata__", None)
    begin = LENGTH_BYTES + len(raw_header)
    tensors, problems = _entries(document, begin, file_size, sidecar)
    problems = [*_metadata_problems(metadata, sidecar), *problems]
    if not problems:
        tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
        problems += _cover_problems(tensors, begin, file_size)
    if problems:
        raise SchemaError(where, problems)
    return Header(begin, tensors, metadata if isinstance(metadata, dict) else {})


def _entries(
    document: Mapping[str, object], begin: int, file_size: int, sidecar: bool
) -> tuple[dict[str, Entry], list[Problem]]:
    if len(document) > TENSOR_LIMIT:
        found = f"{len(document)} tensors"
        return {}, [Problem("header", "too-many-items", found, f"at most {TENSOR_LIMIT}")]
    tensors: dict[str, Entry] = {}
    problems: list[Problem] = []
    for name, value in document.items():
        entry = _entry(name, value, begin, file_size, sidecar)
        if isinstance(entry, Entry):
            tensors[name] = entry
        else:
            problems += entry
    return tensors, problems


def _metadata_problems(metadata: object, sidecar: bool) -> Iterator[Problem]:
    expected = f"one string under {METADATA_KEY!r}" if sidecar else "strings by name"
    if metadata is None and not sidecar:
        return
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        found = "nothing" if metadata is None else shown(metadata)
        yield Problem("__metadata__", "bad-metadata", found, expected)
    elif sidecar and list(metadata) != [METADATA_KEY]:
        found = ", ".join(shown(key) for key in list(metadata)[:8]) or "no key"
        yield Problem("__metadata__", "bad-metadata", found, expected)


def _entry(name: str, value: object, begin: int, file_size: int, sidecar: bool) -> Entry | list[Problem]:
    if len(name.encode()) > (TENSOR_NAME_BYTES if sidecar else WEIGHT_NAME_BYTES) or not (
        _NAME.fullmatch(name) if sidecar else name.isprintable() and name
    ):
        expected = f"lower-case words joined by dots, at most {TENSOR_NAME_BYTES} bytes"
        return [Problem(join("", name), "bad-tensor-name", shown(name), expected)]
    if not isinstance(value, dict) or value.keys() != _KEYS:
        found = ", ".join(shown(key) for key in list(value)[:8]) if isinstance(value, dict) else shown(value)
        expected = "dtype, shape and data_offsets, and nothing else"
        return [Problem(join("", name), "bad-entry", found or "no member", expected)]
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    allowed = NUMPY_DTYPES if sidecar else ITEM_SIZES
    if not isinstance(dtype, str) or dtype not in allowed:
        expected = f"one of {', '.join(sorted(allowed))}"
        return [Problem(f"{join('', name)}.dtype", "bad-dtype", shown(dtype), expected)]
    if not _integers(shape) or len(shape) > RANK_LIMIT:
        expected = f"at most {RANK_LIMIT} integers from 0"
        return [Problem(f"{join('', name)}.shape", "bad-shape", shown(str(shape)), expected)]
    if not _integers(offsets) or len(offsets) != 2:
        return [Problem(f"{join('', name)}.data_offsets", "bad-offsets", shown(str(offsets)), "two integers from 0")]
    return _placed(name, dtype, tuple(shape), (begin + offsets[0], begin + offsets[1]), file_size)


def _integers(value: object) -> bool:
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110 - twice as fast as all() of a generator, and asked twice for each tensor
        if type(item) is not int or item < 0:
            return False
    return True


def _placed(name: str, dtype: str, shape: tuple[int, ...], span: tuple[int, int], size: int) -> Entry | list[Problem]:
    item = ITEM_SIZES[dtype]
    need = math.prod(shape) * item
    # An empty tensor may still have a huge axis, which array libraries cannot count in 64 bits.
    if (need or math.prod(max(extent, 1) for extent in shape) * item) >= 2**63:
        found = shown(str(list(shape)))
        return [Problem(f"{join('', name)}.shape", "bad-shape", found, "a size below 2^63 bytes")]
    if not span[0] <= span[1] <= size:
        found = f"bytes {span[0]} to {span[1]}"
        expected = f"an interval inside {size} bytes"
        return [Problem(f"{join('', name)}.data_offsets", "bad-offsets", found, expected)]
    if span[1] - span[0] != need:
        found = f"{span[1] - span[0]} bytes"
        expected = f"{need}, as its shape and dtype say"
        return [Problem(f"{join('', name)}.data_offsets", "bad-offsets", found, expected)]
    return Entry(dtype, shape, *span)


def _cover_problems(tensors: Mapping[str, Entry], begin: int, file_size: int) -> Iterator[Problem]:
    cursor = begin
    for name, entry in tensors.items():
        if entry.start != cursor:
            code, words = ("hole", "unused bytes") if entry.start > cursor else ("overlap", "shared bytes")
            found = f"{words} before byte {max(entry.start, cursor)}"
            yield Problem(join("", name), code, found, "tensors end to end")
        cursor = max(cursor, entry.end)
    if cursor != file_size:
        yield Problem("header", "hole", f"{file_size - cursor} bytes after the last tensor", "none")


def write_safetensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file: the same for the same tensors, whatever their order.

    Tensors lie by falling element size and then by name, so that each is aligned.

    Args:
        tensors: by name, of the dtypes in :data:`NUMPY_DTYPES`.
        metadata: exactly one entry, ``dfmeta``: with two, no order of them is canonical.

    Raises:
        SchemaError: a dtype, name or metadata key that the format does not allow.
    """
    problems = list(_metadata_problems(dict(metadata), sidecar=True))
    for name, values in tensors.items():
        if values.dtype.newbyteorder("<") not in _CODES:
            expected = ", ".join(sorted(dtype.name for dtype in _CODES))
            problems.append(Problem(name, "bad-dtype", values.dtype.name, f"one of {expected}"))
        if _NAME.fullmatch(name) is None or len(name) > TENSOR_NAME_BYTES:
            problems.append(Problem(shown(name), "bad-tensor-name", shown(name), "lower-case words joined by dots"))
    if problems:
        raise SchemaError("tensors", problems)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    blocks, cursor = [], 0
    for name, values in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        block = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        code = _CODES[values.dtype.newbyteorder("<")]
        offsets = [cursor, cursor + len(block)]
        header[name] = {"dtype": code, "shape": list(values.shape), "data_offsets": offsets}
        blocks.append(block)
        cursor += len(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(LENGTH_BYTES, "little"), text, *blocks])
