"""A positive semi-definite matrix as correlations of few bits beside an exact diagonal, and back.

Rounding the correlations leaves a matrix that may have small negative eigenvalues, at which a Cholesky factorisation
fails. :func:`repaired` makes it positive semi-definite again and keeps its diagonal. The eigenvalue clipping is the
projection of N. J. Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra and its
Applications 103, 1988; scaling the diagonal back is a congruence, under which the matrix stays semi-definite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# int8 correlations are rounded to multiples of 1/127.
INT8_STEPS = 127
# Eigenvalues of the correlation matrix below minus this, times d, are taken for negative ones, others for rounding.
_ROUNDING = 1e-13


def scales(diagonal: NDArray[Any]) -> Array:
    """Square roots of the entries of a diagonal, ``[..., d]`` float64; 0 for what is not above 0."""
    roots: Array = np.sqrt(np.asarray(diagonal, np.float64).clip(min=0))
    return roots


def correlations(matrix: NDArray[Any], diagonal: NDArray[Any]) -> Array:
    """Each entry over the roots of the two diagonal entries that belong to it.

    Args:
        matrix: ``[..., d, d]``.
        diagonal: ``[..., d]``, which broadcasts against the leading axes of ``matrix``.

    Returns:
        ``[..., d, d]`` float64; 0 beside a diagonal entry of 0.
    """
    roots = scales(diagonal)
    inverse = np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0)
    # One root after the other: the product of two could overflow or vanish.
    found: Array = np.asarray(matrix, np.float64) * inverse[..., :, None] * inverse[..., None, :]
    return found


def from_correlations(values: NDArray[Any], diagonal: NDArray[Any]) -> Array:
    """Undo :func:`correlations`: ``[..., d, d]`` float64."""
    roots = scales(diagonal)
    found: Array = np.asarray(values, np.float64) * (roots[..., :, None] * roots[..., None, :])
    return found


def encoded(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Correlations in few bits.

    Args:
        values: correlations, any shape; what lies outside of -1 to 1 is cut off there.
        dtype: ``float16``, or ``int8`` for multiples of 1/127.
    """
    inside: NDArray[Any] = np.clip(values, -1.0, 1.0)
    coded: NDArray[Any] = np.rint(inside * INT8_STEPS).astype(np.int8) if dtype == "int8" else inside.astype(np.float16)
    return coded


def decoded(values: NDArray[Any]) -> Array:
    """Undo :func:`encoded`, by the dtype of ``values``."""
    exact: Array = values.astype(np.float64)
    return exact / INT8_STEPS if values.dtype == np.int8 else exact


def repaired(matrix: NDArray[Any]) -> Array:
    """The matrix without negative eigenvalues, its diagonal as it was.

    Negative eigenvalues of the *correlation* matrix are set to 0, so that a feature of small scale is repaired as
    well as one of large scale. That raises the diagonal, and rows and columns are then scaled back to it.

    Args:
        matrix: ``[d, d]``, symmetric, with no entry of the diagonal below 0.

    Returns:
        ``[d, d]`` float64, symmetric; the input's own values where nothing had to be repaired.
    """
    matrix = np.asarray(matrix, np.float64)
    diagonal = np.diagonal(matrix)
    seen = diagonal > 0
    correlation = correlations(matrix, diagonal)
    # A feature that was always 0 correlates with nothing.
    np.fill_diagonal(correlation, seen.astype(np.float64))
    if _is_semidefinite(correlation):
        return matrix
    values, vectors = np.linalg.eigh(correlation)
    kept = values > 0
    half = vectors[:, kept] * np.sqrt(values[kept])
    clipped = half @ half.T
    clipped = correlations(clipped, np.diagonal(clipped))
    np.fill_diagonal(clipped, seen.astype(np.float64))
    return from_correlations((clipped + clipped.T) / 2, diagonal)


def _is_semidefinite(correlation: Array) -> bool:
    """Whether a Cholesky factorisation goes through, a tenth of the cost of the eigenvalues."""
    ridge = _ROUNDING * max(len(correlation), 1)
    try:
        np.linalg.cholesky(correlation + ridge * np.eye(len(correlation)))
    except np.linalg.LinAlgError:
        return False
    return True
