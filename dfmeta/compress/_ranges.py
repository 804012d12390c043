"""The range of a value from its histogram, by one of four policies, without running anything.

A histogram of the record kind has bins of float32 patterns, at most 1/16 as wide as their values are large. Within a
bin, values are taken to lie evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.kinds.histogram.spec import BINS_BY_VALUE, bin_edges
from dfmeta.records.published import Statistic

Array = NDArray[np.float64]
Policy = Literal["minmax", "percentile", "mse", "entropy"]
POLICIES: tuple[str, ...] = get_args(Policy)
PERCENTILE = 99.99

# Values in a bin that stand for all of it, shares of the range that are tried first, and then of the best one.
_POINTS = 8
_COARSE = np.geomspace(1.0, 0.02, 24)
_FINE = np.geomspace(0.86, 1.16, 13)
# Linear bins, as TensorRT and its followers have them.
_LINEAR = 2048
_ENTROPY_STEP = 16


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often a value fell between two edges, by rising value.

    Attributes:
        lower: ``[b]`` lower edges of bins that are not empty.
        upper: ``[b]`` upper edges.
        counts: ``[b]``, above 0.
    """

    lower: Array
    upper: Array
    counts: Array

    @property
    def low(self) -> float:
        """Lower edge of the lowest bin; 0 where only zeros were seen there."""
        return float(self.lower[0])

    @property
    def high(self) -> float:
        """Upper edge of the highest bin."""
        return float(self.upper[-1])


@dataclass(frozen=True, slots=True)
class Affine:
    """How real numbers are written as integers: ``round(x / scale) + zero``, cut off at both ends.

    Attributes:
        scale: above 0, a float32.
        zero: the integer that stands for 0.
        dtype: ``uint8``, ``int8``, ``uint4`` or ``int4``.
    """

    scale: float
    zero: int
    dtype: str


def read(statistic: Statistic) -> Histogram:
    """A ``histogram`` record over all units.

    Raises:
        StepError: one that counted nothing.
    """
    bins, counts = statistic.tensors["bins"].numpy(), statistic.tensors["counts"].numpy()[0]
    seen = counts > 0
    if not seen.any():
        raise StepError(
            f"histogram of {statistic.value!r}",
            "no counts",
            "at least one",
            "Record again with data that reaches this value, or quantize weights only.",
        )
    lower, upper = bin_edges(bins[seen])
    zero = bins[seen] == 0
    return Histogram(np.where(zero, 0.0, lower), np.where(zero, 0.0, upper), counts[seen].astype(np.float64))


def from_gaussians(mean: Array, variance: Array) -> Histogram:
    """What a value's channels of these means and variances would count, were each of them normal: the shares of bins.

    Args:
        mean: ``[c]``.
        variance: ``[c]``, none below 0.
    """
    lower, upper = bin_edges(BINS_BY_VALUE)
    largest = float((np.abs(mean) + 6 * np.sqrt(variance)).max(initial=0.0))
    near = (np.abs(lower) <= largest) & (np.abs(upper) <= 2 * largest)
    lower, upper = lower[near], upper[near]
    if not len(lower):
        return Histogram(np.zeros(1), np.zeros(1), np.ones(1))
    spread = np.sqrt(np.maximum(variance, (1e-6 * largest) ** 2))
    edges = np.append(lower, upper[-1])
    below = np.mean([_normal((edges - m) / s) for m, s in zip(mean, spread, strict=True)], axis=0)
    counts = np.diff(below)
    # Less than one in a million is beyond what a few thousand pictures show.
    seen = counts > 1e-6
    return Histogram(lower[seen], upper[seen], counts[seen])


def _normal(values: Array) -> Array:
    """The normal distribution function."""
    found: Array = 0.5 * torch.erfc(torch.from_numpy(-values / math.sqrt(2))).numpy()
    return found


def bounds(histogram: Histogram, policy: str, bits: int, percentile: float = PERCENTILE) -> tuple[float, float]:
    """The range by a policy; 0 is always inside of it.

    Args:
        histogram: of the value.
        policy: ``minmax``, the whole range; ``percentile``, without what is rarer at each end; ``mse``, that of least
            squared error after rounding; ``entropy``, that of least Kullback-Leibler divergence (Migacz, "8-bit
            inference with TensorRT", 2017), symmetric about 0 where values are.
        bits: of the integers, for ``mse`` and ``entropy``.
        percentile: above 50, below 100: share of values inside the upper end, and likewise the lower end.

    Raises:
        UnknownName: another policy.
        DataError: a percentile out of range.
    """
    if policy == "minmax":
        low, high = histogram.low, histogram.high
    elif policy == "percentile":
        if not 50 < percentile < 100:
            raise DataError("percentile", f"{percentile:g}", "a number above 50 and below 100")
        low, high = quantile(histogram, 1 - percentile / 100), quantile(histogram, percentile / 100)
    elif policy == "mse":
        low, high = _least_squares(histogram, bits)
    elif policy == "entropy":
        low, high = _least_divergence(histogram, bits)
    else:
        raise UnknownName("range policy", policy, POLICIES)
    return min(low, 0.0), max(high, 0.0)


def affine(low: float, high: float, bits: int, *, symmetric: bool) -> Affine:
    """Integers for a range that holds 0.

    Args:
        low: at most 0.
        high: at least 0.
        bits: 4 or 8.
        symmetric: signed integers with zero 0, instead of unsigned ones.
    """
    if symmetric:
        most = (1 << (bits - 1)) - 1
        return Affine(_scale(max(-low, high) / most), 0, f"int{bits}")
    most = (1 << bits) - 1
    scale = _scale((high - low) / most)
    return Affine(scale, int(np.clip(np.rint(-low / scale), 0, most)), f"uint{bits}")


def _scale(value: float) -> float:
    """As float32, and never 0: a value that is always 0 has any scale."""
    found = float(np.float32(value))
    return found if found > np.finfo(np.float32).tiny else 1.0


def quantile(histogram: Histogram, share: float) -> float:
    """The value below which that share of all values lies."""
    total = np.cumsum(histogram.counts)
    wanted = share * total[-1]
    place = min(int(np.searchsorted(total, wanted)), len(total) - 1)
    inside = (wanted - (total[place] - histogram.counts[place])) / histogram.counts[place]
    width = histogram.upper[place] - histogram.lower[place]
    return float(histogram.lower[place] + min(max(inside, 0.0), 1.0) * width)


def _points(histogram: Histogram) -> tuple[Array, Array]:
    """Values that stand for the bins, and how many each stands for."""
    inside = (np.arange(_POINTS) + 0.5) / _POINTS
    width = histogram.upper - histogram.lower
    values = histogram.lower[:, None] + inside * width[:, None]
    return values.reshape(-1), np.repeat(histogram.counts / _POINTS, _POINTS)


def _least_squares(histogram: Histogram, bits: int) -> tuple[float, float]:
    points = _points(histogram)
    whole = min(histogram.low, 0.0), max(histogram.high, 0.0)
    low, high = _best(points, bits, whole[0] * _COARSE, whole[1] * _COARSE)
    lows, highs = np.maximum(low * _FINE, whole[0]), np.minimum(high * _FINE, whole[1])
    return _best(points, bits, lows, highs)


def _best(points: tuple[Array, Array], bits: int, lows: Array, highs: Array) -> tuple[float, float]:
    """The pair of ends of least squared error."""
    (values, counts), most = points, (1 << bits) - 1
    best, least = (float(lows[0]), float(highs[0])), np.inf
    for low in np.unique(lows):
        for high in np.unique(highs):
            if high <= low:
                continue
            scale = (high - low) / most
            zero = np.rint(-low / scale)
            lost = values - scale * (np.clip(np.rint(values / scale) + zero, 0, most) - zero)
            cost = float(counts @ (lost * lost))
            if cost < least:
                best, least = (float(low), float(high)), cost
    return best


def _least_divergence(histogram: Histogram, bits: int) -> tuple[float, float]:
    """The threshold at which what is cut off and rounded is least different from what there is."""
    values, counts = _points(histogram)
    signed = histogram.low < 0
    largest = max(-histogram.low, histogram.high)
    if largest <= 0:
        return 0.0, 0.0
    levels = 1 << (bits - 1 if signed else bits)
    place = np.minimum((np.abs(values) / largest * _LINEAR).astype(np.int64), _LINEAR - 1)
    linear = np.bincount(place, counts, _LINEAR).astype(np.float64)
    # Zeros are exact whatever the threshold.
    linear[0] = linear[1]
    ends = range(levels, _LINEAR + 1, _ENTROPY_STEP)
    costs = [_divergence(linear, end, levels) for end in ends]
    threshold = ends[int(np.argmin(costs))] / _LINEAR * largest
    return (max(-threshold, histogram.low) if signed else 0.0), min(threshold, histogram.high)


def _divergence(linear: Array, end: int, levels: int) -> float:
    """Between the first ``end`` bins, the rest added to the last of them, and those merged into levels."""
    kept = linear[:end].copy()
    wanted = kept.copy()
    wanted[-1] += linear[end:].sum()
    level = np.arange(end) * levels // end
    filled = kept > 0
    share = np.bincount(level, kept, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    given = np.where(filled, share[level], 0.0)
    wanted, given = wanted / wanted.sum(), given / max(given.sum(), np.finfo(float).tiny)
    # A value that rounding gives no chance at all counts as a very small one.
    ratio = np.log(np.maximum(wanted, 1e-12)) - np.log(np.maximum(given, 1e-12))
    return float((wanted * ratio)[wanted > 0].sum())
