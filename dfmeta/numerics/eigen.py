"""Eigenpairs of a covariance, the same bytes for the same matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def leading_eigenpairs(covariance: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The ``rank`` largest eigenvalues, falling, and their unit eigenvectors as rows.

    The sign of an eigenvector means nothing; its entry of largest magnitude is made positive.

    Args:
        covariance: ``[d, d]``, symmetric and positive semi-definite up to rounding.
        rank: k, at most d.

    Returns:
        ``[k]`` and ``[k, d]`` float32; what rounding made negative is 0.
    """
    values, vectors = np.linalg.eigh(covariance)
    leading = np.arange(len(values))[::-1][:rank]
    rows = vectors.T[leading]
    largest = np.abs(rows).argmax(axis=1)
    rows = rows * np.where(rows[np.arange(len(rows)), largest] < 0, -1, 1)[:, None]
    return values[leading].clip(min=0).astype(np.float32), rows.astype(np.float32)
