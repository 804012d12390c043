"""Weights with many exact zeros, chosen and made up for by a second moment: the rule of SparseGPT.

A row w of a linear map reads x with second moment ``H = E[x x^T]``. Setting one entry to zero and letting the entries
after it make up for it costs ``w_j^2 / U_jj^2``, with ``H^-1 = U^T U`` and U upper triangular: the rule of the optimal
brain surgeon for columns taken from the left (Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be
Accurately Pruned in One-Shot", 2023, section 3; the factor is that of Frantar et al., "GPTQ", 2023). Which entries of a
block of columns go is decided when its turn comes, so that what earlier blocks left behind is taken into account.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.damping import damped

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK = 128
DAMPING = 1e-2


def sparsified(
    weight: Array,
    moment: Array,
    sparsity: float | tuple[int, int],
    *,
    damping: float = DAMPING,
    block: int = BLOCK,
) -> tuple[Array, float]:
    """A weight with zeros, the entries that are left having made up for those that are not.

    Args:
        weight: ``[o, d]``.
        moment: ``[d, d]``, E[x x^T], or the covariance where the map's constant is corrected afterwards.
        sparsity: the fraction of entries that become zero, above 0 and below 1, in every block of columns; or
            ``(n, m)``: at most n entries that are not zero in every m neighbouring columns of a row.
        damping: ridge, in units of the mean of ``moment``'s diagonal; ten times as much, and again, where that leaves
            the moment indefinite.
        block: how many columns are decided on at once; for ``(n, m)`` only a matter of speed.

    Returns:
        ``[o, d]`` with exact zeros, and the damping that it took.

    Raises:
        ValueError: sizes that do not fit, a sparsity out of range, columns that m does not divide.
    """
    _check(weight, moment, sparsity, block)
    whole = damped(moment, damping)
    factor = inverse_factor(whole.moment)
    if not isinstance(sparsity, float):
        block = max(1, block // sparsity[1]) * sparsity[1]
    # Columns of the weight as rows: what is worked on lies together.
    columns = weight.T.copy()
    for start in range(0, len(columns), block):
        stop = min(start + block, len(columns))
        errors = _block(columns[start:stop], factor[start:stop, start:stop], sparsity)
        columns[stop:] -= factor[start:stop, stop:].T @ errors
    return np.ascontiguousarray(columns.T), whole.damping


def _block(columns: Array, factor: Array, sparsity: float | tuple[int, int]) -> Array:
    """Zeros for one block of columns ``[b, o]``, in place; returns what each column leaves to the ones after it."""
    scale = np.square(np.diagonal(factor))[:, None]
    gone = (
        _least(np.square(columns) / scale, sparsity) if isinstance(sparsity, float) else np.zeros(columns.shape, bool)
    )
    errors = np.empty_like(columns)
    for place in range(len(columns)):
        if not isinstance(sparsity, float) and place % sparsity[1] == 0:
            part = slice(place, place + sparsity[1])
            gone[part] = _pattern(np.square(columns[part]) / scale[part], sparsity[0])
        errors[place] = np.where(gone[place], columns[place], 0) / factor[place, place]
        columns[place + 1 :] -= np.outer(factor[place, place + 1 :], errors[place])
        columns[place][gone[place]] = 0
    return errors


def _least(scores: Array, fraction: float) -> Mask:
    """The fraction of all entries with the smallest scores."""
    count = round(fraction * scores.size)
    gone = np.zeros(scores.size, dtype=bool)
    gone[np.argsort(scores, axis=None, kind="stable")[:count]] = True
    return gone.reshape(scores.shape)


def _pattern(scores: Array, keep: int) -> Mask:
    """All but the ``keep`` largest of each column ``[m, o]``."""
    gone = np.ones(scores.shape, dtype=bool)
    largest = np.argsort(scores, axis=0, kind="stable")[len(scores) - keep :]
    np.put_along_axis(gone, largest, False, axis=0)
    return gone


def inverse_factor(moment: Array) -> Array:
    """Upper triangular U with ``H^-1 = U^T U``, for a positive definite H ``[d, d]``."""
    # H read from its last entry gives H = R R^T with R upper triangular, and U is the inverse of R.
    reversed_factor = np.linalg.cholesky(moment[::-1, ::-1])
    factor: Array = np.triu(np.linalg.inv(reversed_factor[::-1, ::-1]))
    return factor


def _check(weight: Array, moment: Array, sparsity: float | tuple[int, int], block: int) -> None:
    if weight.ndim != 2 or moment.shape != (weight.shape[1], weight.shape[1]) or block < 1:
        raise ValueError(f"a moment of shape {moment.shape} for a weight of shape {weight.shape}, {block} at once")
    if isinstance(sparsity, float):
        if not 0 < sparsity < 1:
            raise ValueError(f"a sparsity of {sparsity:g}, which is not above 0 and below 1")
    elif not 0 < sparsity[0] < sparsity[1] or weight.shape[1] % sparsity[1]:
        raise ValueError(f"{sparsity[0]} of {sparsity[1]} in {weight.shape[1]} columns")
