"""Opening what ``--data`` names, and reading it in batches."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfmeta.data import arrays, digits, images
from dfmeta.data.columns import Array, Column, Content
from dfmeta.errors import DataError

_BY_SUFFIX: dict[str, Callable[[Path, str | None], Content]] = {
    ".npz": arrays.open_npz,
    ".safetensors": arrays.open_safetensors,
    ".zip": images.open_zip,
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some units, in the data set's order.

    Attributes:
        inputs: ``[batch, ...]`` for each input, by name; an unnamed only input is called ``x``.
        labels: ``[batch]`` int64, or None.
    """

    inputs: dict[str, Array]
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class DataSource:
    """One split of a data set, or the units of it that a limit drew; nothing is decoded until it is read.

    Attributes:
        name: the file's, folder's or built-in set's name.
        split: the split, or None where the set has none.
        columns: each input's units, by name, or one under ``x``.
        indices: ``[count]`` which units of the columns are read, ascending.
        labels: ``[count]`` int64 class indices of those units, or None.
        label_names: the class names, where the form has any.
    """

    name: str
    split: str | None
    columns: Mapping[str, Column]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...] | None

    @property
    def count(self) -> int:
        """How many units are read."""
        return len(self.indices)

    @cached_property
    def raw(self) -> bool:
        """Whether any input is uint8 images, which preprocessing applies to."""
        return any(column.raw for column in self.columns.values())

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one unit of the first input (of its first image, where images differ in size)."""
        return next(iter(self.columns.values())).item_shape

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All units in fixed order, as they are stored: images are not preprocessed.

        Args:
            batch_size: units in a batch; the last one may be smaller.

        Raises:
            DataError: a batch size below 1, a damaged image, or images of different sizes.
        """
        for indices, labels in self.slices(batch_size):
            inputs = {name: stack(column, column.rows(indices), indices) for name, column in self.columns.items()}
            yield Batch(inputs, labels)

    def slices(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64] | None]]:
        """The column indices and labels of each batch, in fixed order.

        Raises:
            DataError: a batch size below 1.
        """
        if batch_size < 1:
            raise DataError("batch size", str(batch_size), "1 or more")
        for start in range(0, self.count, batch_size):
            part = slice(start, start + batch_size)
            yield self.indices[part], None if self.labels is None else self.labels[part]


def stack(column: Column, rows: list[Array] | Array, indices: NDArray[np.int64]) -> Array:
    """Units as one array ``[len(rows), ...]``.

    Raises:
        DataError: units of different shapes; the message names two of them.
    """
    if isinstance(rows, np.ndarray):
        return rows
    for row, index in zip(rows, indices, strict=True):
        if row.shape != rows[0].shape:
            raise DataError(
                column.unit(int(index)),
                f"shape {list(row.shape)}",
                f"{list(rows[0].shape)}, the shape of {column.unit(int(indices[0]))}",
                "Preprocess with resize (and grayscale, if only some have colour), or convert the files.",
            )
    return np.stack(rows)


def open_data(spec: str, *, limit: int | None = None, seed: int = 0) -> DataSource:
    """Open a data set.

    Args:
        spec: ``PATH[:SPLIT]``: a ``.npz`` or ``.safetensors`` with ``x_<split>`` and ``y_<split>``, or ``x``
            and ``y`` (several inputs: ``x.<input name>``, ``x_<split>.<input name>``); a folder or ``.zip``
            of images ``<split>/<class>/<file>`` or ``<class>/<file>``; or ``digits``. A set with one split
            needs no ``:SPLIT``. A folder that is itself called ``digits`` is ``./digits``.
        limit: draw only this many units, without replacement.
        seed: for the draw; one seed always draws the same units of the same set.

    Raises:
        DataError: nothing there, an unknown form or split, malformed inputs or labels, an empty set, or a
            limit that is larger than the set.
        MissingExtra: ``digits`` without scikit-learn, or images without Pillow.
    """
    place, split = split_spec(spec)
    if place == digits.NAME:
        name, content = digits.NAME, digits.open_digits(split)
    else:
        path = Path(place)
        name, content = path.stem if path.is_file() else path.resolve().name, _form(path)(path, split)
    count = next(iter(content.columns.values())).count
    if count == 0:
        raise DataError(spec, "no units", "at least one")
    indices = _draw(spec, count, limit, seed)
    labels = None if content.labels is None else content.labels[indices]
    return DataSource(name, content.split, content.columns, indices, labels, content.label_names)


def split_spec(spec: str) -> tuple[str, str | None]:
    """Take ``PATH[:SPLIT]`` apart: the text after the last colon is a split if what is before it exists.

    So a colon inside a path, such as that of a Windows drive, belongs to the path.

    Raises:
        DataError: nothing there, or nothing after the colon.
    """
    if spec == digits.NAME or os.path.exists(spec):
        return spec, None
    place, colon, split = spec.rpartition(":")
    if not place or not (place == digits.NAME or os.path.exists(place)):
        fix = "Give PATH or PATH:SPLIT, or digits."
        raise DataError(spec or "--data", "nothing there", "a data set", fix)
    if not split:
        raise DataError(spec, f"nothing after {colon!r}", "the name of a split", f"Say {place} alone for no split.")
    return place, split


def _form(path: Path) -> Callable[[Path, str | None], Content]:
    if path.is_dir():
        return images.open_folder
    form = _BY_SUFFIX.get(path.suffix.lower())
    if form is None:
        expected = f"a folder of images, or one of {', '.join(_BY_SUFFIX)}"
        raise DataError(str(path), f"a file of type {path.suffix or '(none)'}", expected, "Convert it to a .npz.")
    return form


def _draw(spec: str, count: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    if limit is None:
        return np.arange(count, dtype=np.int64)
    if not 1 <= limit <= count:
        raise DataError(spec, f"a limit of {limit}", f"1 to {count}, the units there are", "Change the limit.")
    if seed < 0:
        raise DataError("seed", str(seed), "0 or more")
    drawn = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return np.sort(drawn).astype(np.int64)
