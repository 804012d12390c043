"""What every form of data set opens into: columns of units, and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dfmeta.errors import DataError

Array: TypeAlias = NDArray[Any]

UNNAMED = "x"
"""The key of a data set's only input, when it is not named after a model input."""

_COUNT_FROM_ZERO = "Class indices count from 0; drop units without a class."


class Column(Protocol):
    """One input of every unit, read on demand."""

    @property
    def count(self) -> int:
        """How many units there are."""
        ...

    @property
    def dtype(self) -> str:
        """The numpy name of the element type."""
        ...

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one unit (of the first one, where images differ in size)."""
        ...

    @property
    def raw(self) -> bool:
        """Whether the units are uint8 images, which preprocessing applies to."""
        ...

    def rows(self, indices: NDArray[np.int64]) -> list[Array] | Array:
        """The units at ``indices``, in that order: one array each, or all as one array."""
        ...

    def unit(self, index: int) -> str:
        """What to call a unit in a message."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayColumn:
    """Units that lie in one array in memory.

    Attributes:
        key: the array's name in its file.
        values: ``[n, ...]``; uint8 ``[n, h, w]`` and ``[n, h, w, c]`` are images.
    """

    key: str
    values: Array

    @property
    def count(self) -> int:
        """How many units there are."""
        return int(self.values.shape[0])

    @property
    def dtype(self) -> str:
        """The numpy name of the element type."""
        return self.values.dtype.name

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one unit."""
        return tuple(self.values.shape[1:])

    @property
    def raw(self) -> bool:
        """Whether the units are uint8 images."""
        return self.values.dtype == np.uint8 and self.values.ndim in (3, 4)

    def rows(self, indices: NDArray[np.int64]) -> Array:
        """The units at ``indices``: ``[len(indices), ...]``."""
        chosen: Array = self.values[indices]
        return chosen

    def unit(self, index: int) -> str:
        """The unit's key and index, such as ``x_train[17]``."""
        return f"{self.key}[{index}]"


@dataclass(frozen=True, slots=True)
class Content:
    """One split of a data set, as its form delivers it.

    Attributes:
        columns: a column for each input, by input name, or one under ``x``.
        labels: ``[n]`` int64 class indices, or None.
        label_names: the class names, where the form has any.
        split: the split that was read, or None where the set has none.
    """

    columns: Mapping[str, Column]
    labels: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] | None = None
    split: str | None = field(default=None)


def integer_labels(labels: Array, count: int, where: str) -> NDArray[np.int64]:
    """Labels as int64, once they are known to be ``[count]`` integers that are not negative.

    Raises:
        DataError: another rank, type or length, or a negative label.
    """
    if labels.ndim != 1:
        raise DataError(where, f"shape {list(labels.shape)}", "labels of shape [n]", "Flatten the labels.")
    if labels.dtype.kind not in "iu":
        raise DataError(where, f"type {labels.dtype.name}", "integers", "Give class indices 0, 1, 2, ...")
    if len(labels) != count:
        raise DataError(where, f"{len(labels)} labels", f"one for each of the {count} units")
    if count and int(labels.min()) < 0:
        index = int(np.argmin(labels))
        raise DataError(f"{where}[{index}]", f"label {labels[index]}", "0 or more", _COUNT_FROM_ZERO)
    if count and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(where, f"label {labels.max()}", "class indices", _COUNT_FROM_ZERO)
    return labels.astype(np.int64)


def check_labels(labels: NDArray[np.int64], classes: int, where: str = "labels") -> None:
    """Refuse labels that are not class indices of a model.

    Args:
        labels: ``[n]`` class indices.
        classes: how many classes the model has.
        where: the data set, for the message.

    Raises:
        DataError: a label below 0, or ``classes`` or more; the message names the first one.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        index = int(wrong[0])
        raise DataError(
            f"{where}[{index}]",
            f"label {labels[index]} ({wrong.size} of {labels.size} labels are out of range)",
            f"0 to {classes - 1}, the model's {classes} classes",
            "Give the labels the model was trained with.",
        )
