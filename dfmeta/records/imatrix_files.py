"""Importance matrices as llama.cpp writes them: sums of squares of what each matrix product reads.

Two formats (``tools/imatrix`` of llama.cpp): a GGUF file with ``<weight>.in_sum2``, ``<weight>.counts`` and, in later
ones, ``<weight>.in_sum``; and the older ``.dat``, which has mean squares times a number of calls and no means. A weight
that is a stack of experts has one row for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfmeta.errors import DataError
from dfmeta.records import gguf_strict
from dfmeta.records._foreign_bytes import Cursor, read_bytes
from dfmeta.records.foreign_moments import ForeignFile, ForeignMoment, require_moment

SUMS2, COUNTS, SUMS = ".in_sum2", ".counts", ".in_sum"
LARGEST_COUNT = 2**53


def read_imatrix(paths: Sequence[str | Path]) -> ForeignFile:
    """The entries of a file, or of several of one model, added up as ``llama-imatrix --in-file`` does.

    Args:
        paths: each a GGUF file, or a ``.dat`` (told by the first bytes). Formats cannot be mixed: a ``.dat`` counts
            chunks where the other counts rows.

    Raises:
        DataError: any other file, numbers that are no mean squares, or files that do not add up.
    """
    parts = [_read(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part.software != first.software:
            found = f"{part.software[1]} beside {first.software[1]}"
            raise DataError(str(path), found, "files of one format", "Convert them with llama-imatrix first.")
    moments = {moment.name: moment for moment in first.moments}
    for part in parts[1:]:
        for moment in part.moments:
            earlier = moments.get(moment.name)
            moments[moment.name] = moment if earlier is None else _added(earlier, moment)
    sources = tuple(dict.fromkeys(source for part in parts for source in part.sources))
    units = sum(part.units for part in parts)
    return ForeignFile("imatrix", tuple(moments.values()), "chunk", units, sources, first.software)


def _read(path: str | Path) -> ForeignFile:
    raw = read_bytes(path)
    return _from_gguf(raw, str(path)) if raw[:4] == gguf_strict.MAGIC else _from_dat(raw, str(path))


def _from_gguf(raw: bytes, where: str) -> ForeignFile:
    container = gguf_strict.parse(raw, where)
    kind = container.settings.get("general.type")
    if kind != "imatrix":
        found = f"general.type {str(kind)[:40]!r}"
        raise DataError(where, found, "'imatrix'", "Give what llama-imatrix writes, and not a model.")
    names = [name.removesuffix(SUMS2) for name in container.tensors if name.endswith(SUMS2)]
    if not names:
        raise DataError(where, f"no tensor that ends in {SUMS2}", "one for each weight", "Record it again.")
    moments = [moment for name in names for moment in _entries(container, name)]
    chunks = container.settings.get("imatrix.chunk_count")
    if not isinstance(chunks, int) or chunks < 1:
        raise DataError(f"{where}: imatrix.chunk_count", repr(chunks), "an integer from 1", "Record it again.")
    datasets = container.settings.get("imatrix.datasets")
    sources = (datasets,) if isinstance(datasets, str) else datasets if isinstance(datasets, tuple) else ()
    return ForeignFile("imatrix", tuple(moments), "chunk", chunks, sources, ("llama.cpp imatrix", "gguf"))


def _entries(container: gguf_strict.Container, name: str) -> Iterator[ForeignMoment]:
    where = f"{container.where}: {name!r}"
    if f"{name}{COUNTS}" not in container.tensors:
        raise DataError(where, f"no {COUNTS} beside {SUMS2}", "both", "Record it again.")
    squares = container.array(f"{name}{SUMS2}")
    counts = container.array(f"{name}{COUNTS}").astype(np.float64).reshape(-1)
    if squares.ndim < 1 or not squares.size or squares.size % squares.shape[-1]:
        raise DataError(where, f"sums of shape {list(squares.shape)}", "[matrices, features]")
    squares = squares.reshape(-1, squares.shape[-1])
    if len(counts) != len(squares):
        raise DataError(where, f"{len(counts)} counts", f"{len(squares)}, one for each matrix", "Record it again.")
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts > LARGEST_COUNT).any():
        raise DataError(where, f"a count of {counts.min():g} to {counts.max():g}", "counts from 0", "Record it again.")
    sums = None
    if f"{name}{SUMS}" in container.tensors:
        sums = container.array(f"{name}{SUMS}")
        if sums.size != squares.size:
            raise DataError(where, f"{sums.size} sums", f"{squares.size}, as there are squares", "Record it again.")
        sums = sums.reshape(squares.shape)
    for row, count in enumerate(counts):
        each = name if len(counts) == 1 else f"{name}[{row}]"
        yield _moment(each, f"{container.where}: {each!r}", count, squares[row], None if sums is None else sums[row])


def _moment(
    name: str, where: str, count: float, squares: NDArray[np.float32], sums: NDArray[np.float32] | None
) -> ForeignMoment:
    whole = round(count)
    share = 1 / count if whole else 0.0
    # Where nothing was counted the file holds whatever was there: it is not looked at.
    diagonal = squares.astype(np.float64) * share if whole else np.zeros(len(squares))
    mean = None if sums is None else (sums.astype(np.float64) * share if whole else np.zeros(len(sums)))
    require_moment(where, whole, mean, diagonal)
    return ForeignMoment(name, where, whole, diagonal, mean)


def _from_dat(raw: bytes, where: str) -> ForeignFile:
    cursor = Cursor(raw, where)
    count = cursor.signed(4, "a number of entries")
    if not 1 <= count <= cursor.left // 12:
        found = f"{count} entries in {len(raw)} bytes"
        raise DataError(where, found, "a GGUF file, or a .dat file of llama-imatrix", "Give one of these.")
    moments: dict[str, ForeignMoment] = {}
    most = 0
    for _ in range(count):
        name = cursor.text(4, gguf_strict.NAME_LIMIT, "a name")
        calls, size = cursor.signed(4, "a number of calls"), cursor.signed(4, "a number of values")
        if calls < 0 or size < 1 or name in moments:
            found = "it twice" if name in moments else f"{calls} calls and {size} values"
            raise DataError(f"{where}: {name!r}", found, "it once, with values", "Fetch the file again.")
        values = np.frombuffer(cursor.take(4 * size, f"the values of {name!r}"), "<f4")
        moments[name] = _moment(name, f"{where}: {name!r}", calls, values, None)
        most = max(most, calls)
    chunks, sources = most, []
    if cursor.left:
        # Written since the file can be continued; earlier ones end here.
        chunks = cursor.signed(4, "the last chunk")
        if cursor.left:
            sources.append(cursor.text(4, gguf_strict.TEXT_LIMIT, "the data set's name"))
    if cursor.left:
        raise DataError(f"{where}, byte {cursor.place}", f"{cursor.left} more bytes", "the end of the file")
    units = max(chunks, most)
    return ForeignFile("imatrix", tuple(moments.values()), "chunk", units, tuple(sources), ("llama.cpp imatrix", "dat"))


def _added(one: ForeignMoment, other: ForeignMoment) -> ForeignMoment:
    """What both saw."""
    if one.features != other.features:
        raise DataError(other.where, f"{other.features} values", f"{one.features}, as in {one.where}", "Use one model.")
    total = one.count + other.count
    shares = (one.count / total, other.count / total) if total else (0.0, 0.0)
    diagonal = shares[0] * one.diagonal + shares[1] * other.diagonal
    mean = None
    if one.mean is not None and other.mean is not None:
        mean = shares[0] * one.mean + shares[1] * other.mean
    return ForeignMoment(one.name, one.where, total, diagonal, mean)
