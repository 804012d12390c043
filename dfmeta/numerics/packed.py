"""A symmetric matrix as its packed lower triangle, row by row: (0,0), (1,0), (1,1), (2,0), ..."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed_size(side: int) -> int:
    """Entries in the lower triangle of a ``[side, side]`` matrix, its diagonal included."""
    return side * (side + 1) // 2


def side_of(size: int) -> int:
    """The side of the matrix whose lower triangle has ``size`` entries.

    Raises:
        ValueError: no matrix has that many.
    """
    side = (math.isqrt(8 * max(size, 0) + 1) - 1) // 2
    if packed_size(side) != size:
        raise ValueError(f"{size} entries, which no packed lower triangle has")
    return side


def pack(matrix: NDArray[Any]) -> NDArray[Any]:
    """The lower triangle of each matrix.

    Args:
        matrix: ``[..., d, d]``, symmetric; what is above the diagonal is not looked at.

    Returns:
        ``[..., d(d+1)/2]``, of the same dtype.

    Raises:
        ValueError: matrices that are not square.
    """
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"shape {list(matrix.shape)}, not of square matrices")
    rows, columns = np.tril_indices(matrix.shape[-1])
    packed: NDArray[Any] = matrix[..., rows, columns]
    return packed


def unpack(packed: NDArray[Any]) -> NDArray[Any]:
    """Undo :func:`pack`.

    Args:
        packed: ``[..., d(d+1)/2]``.

    Returns:
        ``[..., d, d]``, symmetric, of the same dtype.

    Raises:
        ValueError: a length that no triangle has.
    """
    side = side_of(packed.shape[-1])
    rows, columns = np.tril_indices(side)
    matrix = np.empty((*packed.shape[:-1], side, side), packed.dtype)
    matrix[..., rows, columns] = packed
    matrix[..., columns, rows] = packed
    return matrix


def packed_diagonal(packed: NDArray[Any]) -> NDArray[Any]:
    """``[..., d]``: the diagonal of each packed matrix ``[..., d(d+1)/2]``.

    Raises:
        ValueError: a length that no triangle has.
    """
    places = np.arange(side_of(packed.shape[-1]))
    diagonal: NDArray[Any] = packed[..., places * (places + 3) // 2]
    return diagonal
