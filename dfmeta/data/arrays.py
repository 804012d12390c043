"""Data sets that are arrays in one file: ``.npz`` and ``.safetensors``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors

from dfmeta.data.archives import ZIP_DAMAGE
from dfmeta.data.columns import UNNAMED, Array, ArrayColumn, Column, Content, integer_labels
from dfmeta.errors import DataError

Read = Callable[[str], Array]

_WRITE_AGAIN = "Download or write the file again."


def open_npz(path: Path, split: str | None) -> Content:
    """Open a ``.npz`` without ever unpickling: ``x_<split>`` and ``y_<split>``, or ``x`` and ``y``.

    Raises:
        DataError: not a readable ``.npz``, no such split, object arrays, or malformed inputs or labels.
    """
    try:
        # Of a path, numpy leaves the file open where the archive is damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(str(path), "a single .npy array", "a .npz of named arrays", "Use numpy.savez.")
            return _content(path, split, archive.files, lambda key: _npz_member(archive, key, path))
    except ZIP_DAMAGE as error:
        raise DataError(str(path), f"an unreadable file ({error})", "a .npz", _WRITE_AGAIN) from error


def _npz_member(archive: Mapping[str, Array], key: str, path: Path) -> Array:
    try:
        return archive[key]
    # A MemoryError is a header that announces more than there is.
    except (*ZIP_DAMAGE, MemoryError) as error:
        found, fix = f"a damaged array ({error})", _WRITE_AGAIN
        if "allow_pickle" in str(error):
            found = "an array of Python objects"
            fix = "Save it again with a numeric dtype: object arrays are pickles, and those run code."
        raise DataError(where_of(path, key), found, "an array of numbers", fix) from error


def where_of(path: Path, key: str) -> str:
    """A file and a key in it, as a message names them."""
    return f"{path}, {key}"


def open_safetensors(path: Path, split: str | None) -> Content:
    """Open a ``.safetensors`` with the keys of a ``.npz``.

    Raises:
        DataError: not a readable ``.safetensors``, no such split, or malformed inputs or labels.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as archive:
            return _content(path, split, list(archive.keys()), archive.get_tensor)
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        # TypeError is how numpy says that it has no such type, bfloat16 above all.
        raise DataError(str(path), f"an unreadable file ({error})", "a .safetensors", _WRITE_AGAIN) from error


def _content(path: Path, split: str | None, keys: Iterable[str], read: Read) -> Content:
    known = set(keys)
    split = _choose_split(path, split, known)
    inputs, label_key = (UNNAMED, "y") if split is None else (f"{UNNAMED}_{split}", f"y_{split}")
    columns: dict[str, Column] = {}
    for key in sorted(known):
        stem, dot, name = key.partition(".")
        if stem == inputs:
            columns[name if dot else UNNAMED] = _column(path, key, read(key))
    if UNNAMED in columns and len(columns) > 1:
        found = f"{inputs} beside {', '.join(f'{inputs}.{name}' for name in columns if name != UNNAMED)}"
        raise DataError(str(path), found, "one unnamed input, or only named ones", f"Rename {inputs}.")
    counts = {key: column.count for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(str(path), f"{counts} units", "as many units of every input", "Give every input once per unit.")
    count = next(iter(counts.values()))
    labels = integer_labels(read(label_key), count, where_of(path, label_key)) if label_key in known else None
    return Content(columns, labels, None, split)


def _choose_split(path: Path, split: str | None, keys: set[str]) -> str | None:
    stems = {key.partition(".")[0] for key in keys}
    splits = sorted(stem.removeprefix(f"{UNNAMED}_") for stem in stems if stem.startswith(f"{UNNAMED}_"))
    if split is not None:
        if split in splits:
            return split
        if UNNAMED in stems and not splits:
            fix = f"Say {path} without :{split}."
            raise DataError(f"{path}, split {split!r}", "one set without splits (x)", f"x_{split}", fix)
    elif UNNAMED in stems:
        return None
    elif len(splits) == 1:
        return splits[0]
    if not splits:
        found = f"keys {', '.join(sorted(keys)) or '(none)'}"
        raise DataError(str(path), found, "x and y, or x_<split> and y_<split>", "Rename the arrays.")
    found = "no split named" if split is None else f"split {split!r}"
    raise DataError(str(path), found, f"one of {', '.join(splits)}", f"Say {path}:{splits[0]}, for example.")


def _column(path: Path, key: str, values: Array) -> ArrayColumn:
    if values.dtype.kind not in "biuf":
        raise DataError(where_of(path, key), f"type {values.dtype.name}", "numbers", "Save it with a numeric dtype.")
    if values.ndim == 0:
        raise DataError(where_of(path, key), "a single number", "an array [n, ...]", "Axis 0 counts the units.")
    return ArrayColumn(key, values)
