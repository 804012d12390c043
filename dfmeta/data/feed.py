"""From a data set to what a model reads: preprocessed, checked, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dfmeta.data.columns import UNNAMED, Array, Column
from dfmeta.data.preprocessing import preprocess
from dfmeta.data.sources import Batch, DataSource, stack
from dfmeta.errors import DataError
from dfmeta.schema import v1


def feed(source: DataSource, inputs: Sequence[v1.Input], batch_size: int = 64) -> Iterator[Batch]:
    """Batches that fit a model's inputs: images preprocessed, other arrays unchanged.

    What can be checked without reading the data is checked at once, the rest batch by batch; memory use
    depends on the batch size, not on the size of the set.

    Args:
        source: an opened data set.
        inputs: the model's inputs, whose ``preprocessing`` applies to uint8 images.
        batch_size: units in a batch; the last one may be smaller.

    Returns:
        Batches whose ``inputs`` are keyed by the model's input names, in the data set's order.

    Raises:
        DataError: inputs that do not match by name, type or shape; and while iterating, images that cannot be
            decoded or preprocessed alike, and values that are not finite.
    """
    columns = _match(source, inputs)
    for spec in inputs:
        column = columns[spec.name]
        if not column.raw:
            _check_item(spec, column.dtype, column.item_shape, f"{source.name}, input {spec.name!r}")
    return _batches(source, inputs, columns, batch_size)


def _match(source: DataSource, inputs: Sequence[v1.Input]) -> dict[str, Column]:
    wanted = [spec.name for spec in inputs]
    columns = dict(source.columns)
    if len(wanted) == 1 and set(columns) == {UNNAMED}:
        return {wanted[0]: columns[UNNAMED]}
    if set(columns) != set(wanted):
        keys = ", ".join(f"x.{name}" for name in sorted(wanted))
        found = ", ".join(name if name == UNNAMED else f"x.{name}" for name in sorted(columns))
        raise DataError(source.name, f"inputs {found}", keys, "Name the arrays after the model's inputs.")
    return columns


def _batches(
    source: DataSource, inputs: Sequence[v1.Input], columns: Mapping[str, Column], batch_size: int
) -> Iterator[Batch]:
    for indices, labels in source.slices(batch_size):
        values = {spec.name: _read(source, spec, columns[spec.name], indices) for spec in inputs}
        yield Batch(values, labels)


def _read(source: DataSource, spec: v1.Input, column: Column, indices: NDArray[np.int64]) -> Array:
    rows = column.rows(indices)
    if column.raw:
        values = _preprocess(column, rows, indices, spec)
        first = column.unit(int(indices[0]))
        _check_item(spec, values.dtype.name, values.shape[1:], f"{first}, preprocessed for input {spec.name!r}")
        return values
    values = stack(column, rows, indices)
    _check_finite(column, values, indices)
    return values


def _preprocess(column: Column, rows: list[Array] | Array, indices: NDArray[np.int64], spec: v1.Input) -> Array:
    where = f"input {spec.name!r}, preprocessing"
    if isinstance(rows, np.ndarray) or len({row.shape for row in rows}) == 1:
        return preprocess(np.asarray(rows), spec.preprocessing, where)
    alone = [
        preprocess(row[None], spec.preprocessing, f"{column.unit(int(index))}, {where}")[0]
        for row, index in zip(rows, indices, strict=True)
    ]
    return stack(column, alone, indices)


def _check_item(spec: v1.Input, dtype: str, shape: tuple[int, ...], where: str) -> None:
    """Compare one unit with a model input, whose axis 0 is the batch; a named dimension may have any size."""
    expected = f"{spec.dtype} {list(spec.shape[1:])} for each unit"
    found = f"{dtype} {list(shape)}"
    wanted = spec.shape[1:]
    fits = len(wanted) == len(shape) and all(
        isinstance(size, str) or size == actual for size, actual in zip(wanted, shape, strict=True)
    )
    if not fits:
        fix = "Add resize, pad or grayscale to the preprocessing, or give arrays of the model's own shape."
        raise DataError(where, found, expected, fix)
    if dtype != spec.dtype:
        raise DataError(where, found, expected, f"Convert the arrays to {spec.dtype} before saving them.")


def _check_finite(column: Column, values: Array, indices: NDArray[np.int64]) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
    bad = values[row][~np.isfinite(values[row])].flat[0]
    raise DataError(column.unit(int(indices[row])), f"the value {bad}", "finite numbers", "Remove or repair the unit.")
