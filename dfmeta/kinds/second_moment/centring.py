"""The covariance from a record's second moment and mean, in the record's own form; needs numpy only.

``S = H - mu mu^T`` holds for the exact matrix. A form that keeps less than the matrix keeps less of ``mu mu^T``
too: beside a mean that is exact at every tap, lags that are averages over taps would leave a matrix that is no
covariance of anything. The same averages are therefore taken of ``mu mu^T``, which gives the covariance in that form.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.correlation import repaired

Array = NDArray[np.float64]


def centred(moment: Array, mean: Array, form: str, kernel: Sequence[int] = ()) -> Array:
    """The covariance of a weight operator's input, symmetric, with no entry of its diagonal below 0.

    Args:
        moment: ``[d, d]`` of one convolution group, as :func:`dfmeta.kinds.second_moment.reading.matrix` gives it.
        mean: ``[d]``, E[x].
        form: ``full``, ``toeplitz``, ``kronecker`` or ``diagonal``.
        kernel: of the convolution, for ``toeplitz`` and ``kronecker``.

    Returns:
        ``[d, d]``: positive semi-definite but for rounding.
    """
    if form == "diagonal":
        return np.diag((np.diagonal(moment) - np.square(mean)).clip(min=0))
    if form == "kronecker":
        return _kronecker(moment, mean, int(np.prod(kernel)))
    if form == "toeplitz":
        return repaired(_diagonal_from_zero(moment - _by_lags(mean, kernel)))
    return _diagonal_from_zero(moment - np.outer(mean, mean))


def _diagonal_from_zero(matrix: Array) -> Array:
    found: Array = (matrix + matrix.T) / 2
    np.fill_diagonal(found, np.diagonal(found).clip(min=0))
    return found


def _by_lags(mean: Array, kernel: Sequence[int]) -> Array:
    """``mu mu^T`` averaged over all pairs of taps that lie equally far apart."""
    places = np.array(list(itertools.product(*map(range, kernel))))
    by_tap = mean.reshape(-1, len(places))
    products = np.einsum("it,ju->tuij", by_tap, by_tap)
    lags = (places[None] - places[:, None]).reshape(-1, len(kernel))
    _, number = np.unique(lags, axis=0, return_inverse=True)
    number = number.reshape(-1)
    sums = np.zeros((number.max() + 1, *products.shape[2:]))
    np.add.at(sums, number, products.reshape(-1, *products.shape[2:]))
    averages = sums / np.bincount(number)[:, None, None]
    whole: Array = averages[number].reshape(products.shape).transpose(2, 0, 3, 1).reshape(len(mean), len(mean))
    return whole


def _kronecker(moment: Array, mean: Array, taps: int) -> Array:
    """The factors of the covariance from those of the moment: both are sums over the moment's own blocks."""
    channels = len(mean) // taps
    by_tap = mean.reshape(channels, taps)
    blocks = moment.reshape(channels, taps, channels, taps)
    across = _diagonal_from_zero(np.einsum("itjt->ij", blocks) / taps - by_tap @ by_tap.T / taps)
    within = _diagonal_from_zero(np.einsum("itiu->tu", blocks) - by_tap.T @ by_tap)
    product: Array = np.kron(repaired(across), repaired(within)) * (taps / (np.trace(within) or 1.0))
    return product
