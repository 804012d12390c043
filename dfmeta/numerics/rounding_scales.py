"""The scale of each row of a weight that is rounded to few levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.gptq import Codes, Factor, error, rounded

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Shares of the range that are tried: a narrower range cuts off the few largest weights and rounds the others finer.
_SHARES = np.linspace(1.0, 0.3, 71)
_TRIED = np.linspace(1.0, 0.4, 13)
# Rows that are rounded at once.
_ROWS = 2048


def from_largest(weight: Array, low: int, high: int, shared: Indices | None = None) -> Array:
    """The smallest scales that cut nothing off: ``[o]``; 1 for a row of zeros.

    Args:
        weight: ``[o, d]``.
        low: least code.
        high: largest code.
        shared: ``[o]`` number of the channel of each row, where several rows must have one scale; None for rows of
            their own.
    """
    above = weight.max(1, initial=0.0) / high
    below = weight.min(1, initial=0.0) / low
    return _together(np.maximum(above, below), shared)


def _together(scales: Array, shared: Indices | None) -> Array:
    """One scale, the largest, for all rows of a channel; 1 where it would be 0."""
    if shared is not None:
        largest = np.zeros(int(shared.max()) + 1)
        np.maximum.at(largest, shared, scales)
        scales = largest[shared]
    # A subnormal scale would make its own inverse infinite.
    return np.where(scales > np.finfo(np.float32).tiny, scales, 1.0)


def from_grid(
    weight: Array, low: int, high: int, importance: Array | None = None, shared: Indices | None = None
) -> Array:
    """Scales of least squared error of rounding to nearest, among 71 shares of the whole range: ``[o]``.

    Args:
        weight: ``[o, d]``.
        low: least code.
        high: largest code.
        importance: ``[d]`` weight of each column's error, such as E[x^2]; None for equal ones.
        shared: as of :func:`from_largest`; the error is then that of all rows of a channel together.
    """
    whole = from_largest(weight, low, high, shared)
    columns = np.ones(weight.shape[1]) if importance is None else importance
    best, least = whole.copy(), np.full(len(weight), np.inf)
    for share in _SHARES:
        scales = whole * share
        lost = weight - scales[:, None] * np.clip(np.rint(weight / scales[:, None]), low, high)
        costs = _summed(np.square(lost) @ columns, shared)
        better = costs < least
        best, least = np.where(better, scales, best), np.where(better, costs, least)
    return best


def _summed(costs: Array, shared: Indices | None) -> Array:
    if shared is None:
        return costs
    found: Array = np.bincount(shared, costs)[shared].astype(np.float64)
    return found


def searched(
    weight: Array, moment: Array, factor: Factor, low: int, high: int, shared: Indices | None = None
) -> tuple[Array, Codes]:
    """Scales and codes of least ``dW H dW^T`` after rounding with error feedback, among 13 shares of the range.

    Rows are rounded independently of each other, so that each has its own best scale: that of what the feedback really
    leaves, and not of rounding to nearest. The best one is then fitted to the codes in least squares,
    ``s = w H q / q H q``, and kept where rounding with it is better still.

    Args:
        weight: ``[o, d]``.
        moment: ``[d, d]``, undamped.
        factor: of it.
        low: least code.
        high: largest code.
        shared: as of :func:`from_grid`.

    Returns:
        Scales ``[o]`` and codes ``[o, d]`` int8.
    """
    whole, known = from_largest(weight, low, high, shared), _Best.of(weight)
    for shares in np.array_split(_TRIED, -(-len(_TRIED) * len(weight) // _ROWS)):
        # Several scales in one pass: rows do not see each other.
        scales = np.concatenate([whole * share for share in shares])
        tried = rounded(np.tile(weight, (len(shares), 1)), factor, scales, low, high)
        for number in range(len(shares)):
            part = slice(number * len(weight), (number + 1) * len(weight))
            known.take(weight, moment, shared, scales[part], tried[part])
    for _ in range(2):
        fitted = _fitted(weight, moment, known.codes, known.scales, shared)
        known.take(weight, moment, shared, fitted, rounded(weight, factor, fitted, low, high))
    return known.scales, known.codes


@dataclass(slots=True)
class _Best:
    """What is best so far, row by row.

    Attributes:
        scales: ``[o]``.
        codes: ``[o, d]``.
        costs: ``[o]``.
    """

    scales: Array
    codes: Codes
    costs: Array

    @classmethod
    def of(cls, weight: Array) -> _Best:
        """Nothing tried yet."""
        return cls(np.ones(len(weight)), np.zeros(weight.shape, np.int8), np.full(len(weight), np.inf))

    def take(self, weight: Array, moment: Array, shared: Indices | None, scales: Array, codes: Codes) -> None:
        """Take over the rows that are better with these scales and codes."""
        costs = _summed(error(weight - scales[:, None] * codes, moment), shared)
        better = costs < self.costs
        self.scales = np.where(better, scales, self.scales)
        self.codes = np.where(better[:, None], codes, self.codes)
        self.costs = np.where(better, costs, self.costs)


def _fitted(weight: Array, moment: Array, codes: Codes, scales: Array, shared: Indices | None) -> Array:
    """Scales in least squares for these codes; the old ones where that says nothing."""
    whole = codes.astype(np.float64)
    seen = whole @ moment
    above = _summed(np.einsum("oi,oi->o", seen, weight), shared)
    below = _summed(np.einsum("oi,oi->o", seen, whole), shared)
    ratio = np.divide(above, below, out=scales.copy(), where=below > 0)
    return np.where(ratio > 0, ratio, scales)
