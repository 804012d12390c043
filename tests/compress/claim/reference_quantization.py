"""Rounding weights with the data at hand, as the papers write it.

GPTQ: Frantar et al., 2023, arXiv:2210.17323, algorithm 1 without blocks, with "act-order" of the authors' program: one
Cholesky factor of the inverse Hessian, one column after the other. Nearest rounding with bias correction: Nagel et al.,
"Data-Free Quantization", 2019, section 4.2, from the true mean. Samples are taken about their mean because the bias
takes that up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Limits = tuple[int, int]


def limits_of(bits: int) -> Limits:
    """-127 to 127 for 8 bits, all codes for fewer."""
    return (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def gptq(weight: Array, samples: Array, scales: Array, limits: Limits) -> Array:
    """Codes ``[o, d]`` at given scales ``[o]``."""
    hessian = samples.T @ samples
    # Taps that see the same pixels have equal energies, and rounding must not decide which comes first.
    energies = np.diagonal(hessian)
    order = np.argsort(-np.round(energies / (energies.max() or 1.0), 4), kind="stable")
    damped = hessian + (0.01 * np.diagonal(hessian).mean() or 1.0) * np.eye(len(hessian))
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = weight[:, order].copy()
    codes = np.empty_like(weight)
    for place, column in enumerate(order):
        codes[:, column] = np.clip(np.rint(left[:, place] / scales), *limits)
        error = (left[:, place] - scales * codes[:, column]) / factor[place, place]
        left[:, place:] -= np.outer(error, factor[place, place:])
    return codes


def nearest(weight: Array, scales: Array, limits: Limits) -> Array:
    """Codes ``[o, d]``, each entry by itself."""
    return np.clip(np.rint(weight / scales[:, None]), *limits)


def largest(weight: Array, limits: Limits) -> Array:
    """Scales ``[o]`` that cut nothing off."""
    above, below = weight.max(1) / limits[1], weight.min(1) / limits[0]
    found = np.maximum(0, np.maximum(above, below))
    return np.where(found > np.finfo(np.float32).tiny, found, 1.0)


def best_for_nearest(weight: Array, samples: Array | None, limits: Limits) -> Array:
    """Scales of least error of rounding to nearest: by the mean square of each sample's entry, or by none."""
    importance = np.ones(weight.shape[1]) if samples is None else np.square(samples).sum(0)
    whole = largest(weight, limits)
    tried = whole * np.linspace(1, 0.3, 71)[:, None]
    costs = [np.square(weight - s[:, None] * nearest(weight, s, limits)) @ importance for s in tried]
    best: Array = tried[np.argmin(costs, axis=0), np.arange(len(weight))]
    return best


def best_for_gptq(weight: Array, samples: Array, limits: Limits) -> tuple[Array, Array]:
    """Scales and codes of least error of the outputs: 13 shares of the range, then the codes' own, twice."""
    wanted = weight @ samples.T
    best, codes = np.ones(len(weight)), np.zeros_like(weight)
    least = np.full(len(weight), np.inf)

    def take(scales: Array) -> None:
        tried = gptq(weight, samples, scales, limits)
        costs = np.square(wanted - scales[:, None] * (tried @ samples.T)).sum(1)
        better = costs < least
        best[better], codes[better], least[better] = scales[better], tried[better], costs[better]

    for share in np.linspace(1, 0.4, 13):
        take(largest(weight, limits) * share)
    for _ in range(2):
        made = codes @ samples.T
        above, below = (made * wanted).sum(1), np.square(made).sum(1)
        fitted = np.divide(above, below, out=best.copy(), where=below > 0)
        take(np.where(fitted > 0, fitted, best))
    return best, codes


def corrected_bias(bias: Array, weight: Array, replaced: Array, mean: Array) -> Array:
    """The bias that keeps each output's mean."""
    found: Array = bias + (weight - replaced) @ mean
    return found
