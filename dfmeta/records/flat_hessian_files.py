"""Second moments as QuIP#, QTIP and VPTQ publish them: one file for each layer and what its weights read.

A file holds ``flatH``, the packed lower triangle of the **centred** matrix E[x x^T] - mu mu^T; ``mu``, the mean; ``n``,
the number of features; and ``ct``, the number of rows (Cornell-RelaxML/quip-sharp, ``hessian_offline_llama.py``). It is
centred no more on the way in: E[x x^T] = H + mu mu^T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfmeta.bundle.safetensors_strict import LENGTH_BYTES, NUMPY_DTYPES, header_length, parse_header
from dfmeta.errors import DataError, Problem
from dfmeta.kinds.second_moment.reading import MAX_SIDE
from dfmeta.kinds.second_moment.spec import CORRELATION_TOLERANCE
from dfmeta.numerics.packed import packed_size
from dfmeta.records import torch_archive
from dfmeta.records._foreign_bytes import read_bytes
from dfmeta.records.foreign_moments import ForeignFile, ForeignMoment, require_moment

MEMBERS = ("flatH", "mu", "n", "ct")


def read_flat_hessians(paths: Sequence[str | Path]) -> ForeignFile:
    """The entries of such files; each is called what its file is called, without the ending.

    Args:
        paths: ``.pt`` files, whose pickle is read and never run, or ``.safetensors`` files of the same members.

    Raises:
        DataError: any other file, or numbers that are no moments.
    """
    moments: dict[str, ForeignMoment] = {}
    for path in map(Path, paths):
        if path.stem in moments:
            raise DataError(str(path), f"a second file called {path.stem!r}", "one for each layer", "Rename one.")
        moments[path.stem] = _moment(path.stem, str(path), _members(path))
    rows = min((moment.count for moment in moments.values()), default=0)
    found = tuple(moments.values())
    return ForeignFile("flat-hessian", found, "row", rows, (), ("flat-hessian", "unknown"))


def _members(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return _from_safetensors(read_bytes(path), str(path))
    if path.suffix in (".pt", ".pth"):
        return torch_archive.read(path)
    raise DataError(str(path), f"the ending {path.suffix!r}", ".pt or .safetensors", "Give files of that form.")


def _from_safetensors(raw: bytes, where: str) -> dict[str, np.ndarray]:
    length = header_length(raw[:LENGTH_BYTES], len(raw))
    if isinstance(length, Problem):
        raise DataError(where, length.found, length.expected, "Fetch the file again.")
    header = parse_header(raw[LENGTH_BYTES : LENGTH_BYTES + length], len(raw), where, sidecar=False)
    found = {}
    for name, entry in header.tensors.items():
        if entry.dtype not in NUMPY_DTYPES and entry.dtype not in ("I32", "BF16"):
            raise DataError(f"{where}: {name!r}", f"type {entry.dtype}", "numbers in F64, F32, F16, BF16, I64 or I32")
        dtype = NUMPY_DTYPES.get(entry.dtype, np.dtype("<u2" if entry.dtype == "BF16" else "<i4"))
        values = np.frombuffer(raw[entry.start : entry.end], dtype).reshape(entry.shape)
        if entry.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[name] = values
    return found


def _moment(name: str, where: str, members: Mapping[str, Any]) -> ForeignMoment:
    missing = [each for each in MEMBERS if each not in members]
    if missing:
        held = ", ".join(sorted(members)[:8]) or "nothing"
        fix = "Inverse Hessians (invH) cannot be read: give the Hessians." if "invH" in members else "Check the file."
        raise DataError(where, f"{held}, and no {', '.join(missing)}", ", ".join(MEMBERS), fix)
    features, rows = (_whole(where, key, members[key]) for key in ("n", "ct"))
    if not 1 <= features <= MAX_SIDE:
        raise DataError(f"{where}: n", str(features), f"1 to {MAX_SIDE}")
    centred, mean = (_numbers(where, key, members[key]) for key in ("flatH", "mu"))
    if len(mean) != features or len(centred) != packed_size(features):
        found = f"{len(centred)} entries of flatH and {len(mean)} of mu"
        raise DataError(where, found, f"{packed_size(features)} and {features}, for n = {features}", "Check the file.")
    if rows == 0:
        return ForeignMoment(name, where, 0, np.zeros(features), np.zeros(features), np.zeros_like(centred, np.float32))
    if not np.isfinite(centred).all():
        raise DataError(f"{where}: flatH", "NaN or infinity", "finite numbers", "Record it again.")
    mean = mean.astype(np.float64)
    places = np.arange(features)
    # Rounding of the centred sums may leave a feature that never changes a little below 0.
    variance = centred[places * (places + 3) // 2].astype(np.float64)
    if variance.min() < -1e-4 * max(float(variance.max()), float(np.square(mean).max()), 1e-30):
        raise DataError(f"{where}: flatH", f"a variance of {variance.min():g}", "none below 0", "Record it again.")
    diagonal = np.maximum(variance, 0.0) + np.square(mean)
    require_moment(where, rows, mean, diagonal)
    return ForeignMoment(name, where, rows, diagonal, mean, _raw(where, centred, mean, diagonal))


def _raw(where: str, centred: NDArray[Any], mean: NDArray[Any], diagonal: NDArray[Any]) -> NDArray[np.float32]:
    """E[x x^T] packed, a row at a time: the whole matrix would take twice the memory."""
    found = np.empty(len(centred), np.float32)
    roots, start = np.sqrt(diagonal), 0
    for row in range(len(mean)):
        entries = centred[start : start + row + 1].astype(np.float64) + mean[row] * mean[: row + 1]
        entries[row] = diagonal[row]
        most = roots[row] * roots[: row + 1]
        if (np.abs(entries) > most * (1 + CORRELATION_TOLERANCE) + 1e-4 * diagonal.max() * (most == 0)).any():
            expected = "entries of at most the root of the two diagonal entries' product"
            raise DataError(f"{where}: flatH", f"a larger entry in row {row}", expected, "Record it again.")
        found[start : start + row + 1] = np.clip(entries, -most, most)
        start += row + 1
    return found


def _whole(where: str, key: str, value: Any) -> int:
    """A count, as a number or as a tensor of one."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(()).item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**53:
        raise DataError(f"{where}: {key}", f"{ascii(value)[:40]}", "a whole number from 0", "Check the file.")
    return value


def _numbers(where: str, key: str, value: Any) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 1:
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise DataError(f"{where}: {key}", found, "a row of floating-point numbers", "Check the file.")
    return value
