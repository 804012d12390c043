"""How many singular values of a matrix rise above its noise, by empirical variational Bayes (EVBMF).

An observed matrix is a product of two factors plus normal noise, with normal priors on the factors whose variances are
learned too. Given the noise, the best factorised posterior keeps each singular value and shrinks it, or drops it, on
its own: S. Nakajima, M. Sugiyama, S. D. Babacan, R. Tomioka, "Global Analytic Solution of Fully-observed Variational
Bayesian Matrix Factorization", JMLR 14 (2013). Its threshold in closed form, and the bounds between which the noise's
variance is sought as the minimum of the free energy, are in S. Nakajima, R. Tomioka, M. Sugiyama, S. D. Babacan,
"Perfect Dimensionality Recovery by Variational Bayesian PCA", NIPS 2012.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Below this share of the largest, a singular value is rounding.
_ROUNDING = 1e-12
_GRID = 400
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Evbmf:
    """What of a matrix is not noise.

    Attributes:
        values: ``[rank]`` float64, the singular values that remain, shrunk, falling.
        noise: variance of the noise in each entry of the matrix.
    """

    values: Matrix
    noise: float

    @property
    def rank(self) -> int:
        """How many singular values remain."""
        return len(self.values)


def evbmf(matrix: Matrix) -> Evbmf:
    """Rank, shrunken singular values and noise variance of a matrix.

    A matrix and its transpose give the same, and a scaled matrix the scaled values. A matrix without noise keeps all
    singular values that are not rounding.

    Args:
        matrix: ``[m, n]``, finite.
    """
    short, long = sorted(matrix.shape)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False) if short else np.zeros(0)
    largest = float(singular.max(initial=0.0))
    if largest == 0.0:
        return Evbmf(np.zeros(0), 0.0)
    # In units of the largest, so that nothing depends on the matrix's scale.
    relative = singular / largest
    noise = _noise(relative, short, long)
    energy = relative**2 / long
    kept = relative[energy > noise * _least_signal(short / long)]
    ratio = noise / np.maximum(kept**2, np.finfo(float).tiny)
    linear = 1 - (short + long) * ratio
    # The larger root of the stationary equation: the smaller is a maximum of the free energy.
    shrunk = kept / 2 * (linear + np.sqrt(np.maximum(linear**2 - 4 * short * long * ratio**2, 0.0)))
    return Evbmf(largest * shrunk, largest**2 * noise)


def _least_signal(shape: float) -> float:
    """The threshold, as a squared singular value over (long side times noise variance).

    ``shape`` is the short side over the long one. The threshold is ``(1 + t)(1 + shape / t)`` with ``t`` the zero of
    ``f(t) + f(t / shape)``, where ``f(z) = log(1 + z) / z - 1/2`` falls.
    """
    low, high = 0.0, 3.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return (1 + middle) * (1 + shape / middle)
        total = sum(np.log1p(z) / z - 0.5 for z in (middle, middle / shape))
        low, high = (middle, high) if total > 0 else (low, middle)


def _noise(singular: Matrix, short: int, long: int) -> float:
    """The noise's variance: where the free energy is least, between the bounds of the second paper."""
    shape = short / long
    least = _least_signal(shape)
    most = min(int(np.ceil(short / (1 + shape))) - 1, len(singular))
    energy = singular**2 / long
    lower = max(float(energy[most] / least), float(energy[most:].mean()))
    upper = float(energy.mean())
    floor = _ROUNDING**2 * upper
    if lower <= floor:
        # Where the small ones are nothing but rounding, there is no noise, and the free energy no minimum.
        return floor
    # Between two of the points where a value passes the threshold the free energy is smooth, but it may have several
    # minima: all are looked at.
    grid = np.unique(np.concatenate([np.geomspace(lower, upper, _GRID), np.clip(energy / least, lower, upper)]))
    best = int(np.argmin(_free_energy(energy, grid, shape, least)))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return _narrowed(energy, shape, least, float(left), float(right))


def _narrowed(energy: Matrix, shape: float, least: float, left: float, right: float) -> float:
    """Golden section: the lowest point between two variances."""
    while right - left > 1e-10 * right:
        inner = left + (1 - _GOLDEN) * (right - left)
        outer = left + _GOLDEN * (right - left)
        at_inner, at_outer = _free_energy(energy, np.array([inner, outer]), shape, least)
        left, right = (left, outer) if at_inner <= at_outer else (inner, right)
    return (left + right) / 2


def _free_energy(energy: Matrix, variances: Matrix, shape: float, least: float) -> Matrix:
    """``[v]`` the free energy for each noise variance, up to constants and its factor."""
    x = energy / variances[:, None]
    # A singular value of 0 adds a constant and the logarithm of the variance.
    total: Matrix = np.sum(x - np.log(np.where(energy > 0, x, 1 / variances[:, None])), axis=1)
    centred = np.maximum(x, least) - (1 + shape)
    tau = (centred + np.sqrt(np.maximum(centred**2 - 4 * shape, 0.0))) / 2
    signal = np.log1p(tau) + shape * np.log1p(tau / shape) - tau
    total += np.sum(np.where(x > least, signal, 0.0), axis=1)
    return total
