"""Importance matrices for llama.cpp, from recorded second moments: the GGUF file, and the older ``.dat``.

What ``llama-imatrix`` writes (llama.cpp, ``tools/imatrix``): ``<weight>.in_sum2`` is the sum of squares of each feature
of what a matrix product reads, ``<weight>.in_sum`` the sum, ``<weight>.counts`` the rows. Written by hand, because the
format's own writer puts an architecture into the file, which these files do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.errors import ExportError

ALIGNMENT = 32
VERSION = 3
# The container's numbers of its types.
_UINT32, _STRING, _ARRAY, _F32 = 4, 8, 9, 0
# Of ggml's: a longer name is cut off by its reader.
NAME_BYTES = 63
SUFFIXES = (".in_sum2", ".in_sum", ".counts")


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """What one weight's matrix product reads.

    Attributes:
        name: of the weight, as the reader of the file calls it.
        count: rows, above 0.
        squares: ``[d]`` E[x^2].
        mean: ``[d]`` E[x]; None where it was not recorded.
    """

    name: str
    count: int
    squares: NDArray[np.float64]
    mean: NDArray[np.float64] | None


def gguf_bytes(entries: Sequence[Importance], datasets: Sequence[str], chunks: int, chunk_size: int) -> bytes:
    """The GGUF file; tensors by name, so that the same entries give the same bytes.

    Args:
        entries: one for each weight.
        datasets: what the data is called.
        chunks: pieces of data that went in.
        chunk_size: rows in each.

    Raises:
        ExportError: a name that is there twice, or too long for ggml; numbers that float32 cannot hold.
    """
    _require(entries)
    tensors = {name: array for entry in entries for name, array in _tensors(entry).items()}
    ordered = sorted(tensors.items())
    keys = [
        _text("general.type") + _number(_STRING, 4) + _text("imatrix"),
        _text("imatrix.datasets")
        + _number(_ARRAY, 4)
        + _number(_STRING, 4)
        + _number(len(datasets), 8)
        + b"".join(map(_text, datasets)),
        *(
            _text(f"imatrix.{name}") + _number(_UINT32, 4) + _number(min(max(value, 1), 2**32 - 1), 4)
            for name, value in (("chunk_count", chunks), ("chunk_size", chunk_size))
        ),
    ]
    table, blocks, offset = [], [], 0
    for name, array in ordered:
        # The axis that lies together comes first.
        shape = b"".join(_number(size, 8) for size in reversed(array.shape))
        table.append(_text(name) + _number(array.ndim, 4) + shape + _number(_F32, 4) + _number(offset, 8))
        block = array.astype("<f4").tobytes()
        blocks.append(block + bytes(-len(block) % ALIGNMENT))
        offset += len(blocks[-1])
    head = b"GGUF" + _number(VERSION, 4) + _number(len(ordered), 8) + _number(len(keys), 8)
    head += b"".join(keys) + b"".join(table)
    return head + bytes(-len(head) % ALIGNMENT) + b"".join(blocks)


def dat_bytes(entries: Sequence[Importance], datasets: Sequence[str], chunks: int) -> bytes:
    """The older file: mean squares times a number of calls, which is one and the same for all weights here.

    Args:
        entries: one for each weight; their means are lost.
        datasets: the first is written.
        chunks: pieces of data that went in.

    Raises:
        ExportError: as :func:`gguf_bytes`.
    """
    _require(entries)
    calls = _number(min(max(chunks, 1), 2**31 - 1), 4)
    parts = [_number(len(entries), 4)]
    for entry in sorted(entries, key=lambda entry: entry.name):
        values = (entry.squares * int.from_bytes(calls, "little")).astype("<f4")
        parts += [_short(entry.name), calls, _number(len(values), 4), values.tobytes()]
    return b"".join([*parts, calls, _short(datasets[0] if datasets else "")])


def _tensors(entry: Importance) -> dict[str, NDArray[np.float32]]:
    rows = {".in_sum2": entry.count * entry.squares}
    if entry.mean is not None:
        rows[".in_sum"] = entry.count * entry.mean
    found = {entry.name + suffix: values.astype(np.float32)[None] for suffix, values in rows.items()}
    return found | {f"{entry.name}.counts": np.array([[entry.count]], np.float32)}


def _require(entries: Sequence[Importance]) -> None:
    names = [entry.name for entry in entries]
    for entry in entries:
        if names.count(entry.name) > 1:
            fix = "Give each weight a name of its own in the map."
            raise ExportError("imatrix", f"two weights called {entry.name!r}", "one of each name", fix)
        if len((entry.name + SUFFIXES[0]).encode()) > NAME_BYTES:
            found = f"{entry.name!r}, of {len(entry.name.encode())} bytes"
            expected = f"at most {NAME_BYTES - len(SUFFIXES[0])}, as ggml reads them"
            raise ExportError("imatrix", found, expected, "Give it llama.cpp's name with --map or --names llama.cpp.")
        if entry.count * float(entry.squares.max(initial=0)) > float(np.finfo(np.float32).max):
            raise ExportError(f"imatrix, {entry.name!r}", "a sum beyond float32", "sums that it can hold")


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _text(text: str) -> bytes:
    raw = text.encode()
    return _number(len(raw), 8) + raw


def _short(text: str) -> bytes:
    raw = text.encode()
    return _number(len(raw), 4) + raw
