"""`histogram`, version 1: how many values fell into each of a fixed set of bins, over all units or class by class.

A bin is the top 13 bits of a float32 pattern: the sign, the 8 exponent bits and the first 4 mantissa bits (IEEE
754-2019, section 3.4, binary32). Sixteen bins to each power of two, so that a bin is at most 1/16 as wide as its
values are large, and no range has to be known beforehand. Relative bins of this sort are those of DDSketch (Masson,
Rim and Lee, PVLDB 12(12), 2019), with the logarithm replaced by the bits themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, TensorLayout, non_negative, zero_where_unobserved

VERSION = 1
# Bins of few units were merged into others, and one record does not say which bins another one merged.
MERGEABLE = False
EXTREMES_POLICY = "unit-clipped"
CONVENTIONS = {
    "binning": "float32-top-13-bits",
    "accumulation_dtype": "int64",
}
TYPICAL_LENGTHS = {"bins": 300}
# Tensors that all groups share: they have no group axis.
SHARED = frozenset({"bins"})

# 13 bits of 32 are kept.
PATTERNS = 1 << 13
PATTERN_SHIFT = 32 - 13
NEGATIVE = 1 << 12  # the sign bit of a bin
FIRST_NORMAL = 1 << 4  # magnitudes below are 0 or a denormal, and belong to bin 0
FIRST_NON_FINITE = 255 << 4  # magnitudes from here on are infinite or not a number

# Every bin there is, by rising value; bin 0 stands in the middle.
BINS_BY_VALUE = np.concatenate(
    [
        np.arange(NEGATIVE + FIRST_NON_FINITE - 1, NEGATIVE + FIRST_NORMAL - 1, -1),
        [0],
        np.arange(FIRST_NORMAL, FIRST_NON_FINITE),
    ]
).astype(np.int64)
BINS_BY_VALUE.flags.writeable = False


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """The tensors of one record.

    Args:
        features: d, the number of features; all of them share one histogram.
        groups: C, the number of groups, or None for one record over all units.
        configuration: no member of it changes the layout of this kind.

    Returns:
        ``count`` int64 ``[]`` or ``[C]``, the values that went in; ``bins`` int64 ``[B]``, by rising value, shared by
        the groups; ``counts`` int64 ``[B]`` or ``[C, B]``, the values in each bin.
    """
    del features, configuration
    lead = () if groups is None else (groups,)
    return {
        "count": TensorLayout(COUNT, lead),
        "bins": TensorLayout(COUNT, ("bins",)),
        "counts": TensorLayout(COUNT, (*lead, "bins")),
    }


def bin_of(values: np.ndarray) -> np.ndarray:
    """The bin of each value.

    Args:
        values: any shape, any real dtype; rounded to float32 (to nearest, ties to even) first.

    Returns:
        int64, the shape of ``values``. Zero of either sign and every denormal (magnitude below 2**-126) is bin 0, so
        that machines that flush denormals to zero count alike.

    Raises:
        ValueError: a value that is infinite or not a number, or that float32 cannot hold.
    """
    with np.errstate(over="ignore"):  # refused below
        rounded = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(rounded).all():
        raise ValueError("a value that is not finite in float32 has no bin")
    found = (rounded.view(np.uint32) >> PATTERN_SHIFT).astype(np.int64).reshape(np.shape(values))
    found[found % NEGATIVE < FIRST_NORMAL] = 0
    return found


def rank_of(bins: np.ndarray) -> np.ndarray:
    """Place of each bin on the axis of values: 0 for bin 0, rising with the value, negative for negative values.

    Args:
        bins: bins of :data:`BINS_BY_VALUE`, any shape, int64.

    Returns:
        int64, the shape of ``bins``.
    """
    return np.where(bins >= NEGATIVE, NEGATIVE - bins, bins)


def bin_edges(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of each bin.

    The edge nearer to zero belongs to the bin, the other one does not; of bin 0, neither does. Bins that follow
    each other share an edge. The outermost edges are -2**128 and 2**128, which float32 cannot hold.

    Args:
        bins: bins of :data:`BINS_BY_VALUE`, any shape, int64.

    Returns:
        ``lower`` and ``upper``, float64, the shape of ``bins``, in the site's units; exact.
    """
    magnitude = bins % NEGATIVE
    near, far = _smallest(magnitude), _smallest(magnitude + 1)
    zero = bins == 0
    tiny = _smallest(np.asarray(FIRST_NORMAL))
    near, far = np.where(zero, -tiny, near), np.where(zero, tiny, far)
    negative = bins >= NEGATIVE
    return np.where(negative, -far, near), np.where(negative, -near, far)


def _smallest(magnitude: np.ndarray) -> np.ndarray:
    """Smallest magnitude with these 12 bits as float64: ``(1 + mantissa / 16) * 2**(exponent - 127)``."""
    return np.ldexp(1 + magnitude % 16 / 16, (magnitude // 16 - 127).astype(np.int32))


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind: below 0, in unknown or unsorted bins, or not adding up."""
    count, bins, counts = tensors["count"], tensors["bins"], tensors["counts"]
    found = [
        *non_negative(count, f"{where}.count"),
        *non_negative(counts, f"{where}.counts"),
        *zero_where_unobserved(count, {"counts": counts}, where),
        *_in_order(bins, where),
    ]
    return found or _adding_up(count, counts, where)


def _in_order(bins: np.ndarray, where: str) -> list[Problem]:
    unknown = bins[~np.isin(bins, BINS_BY_VALUE)]
    if unknown.size:
        expected = "bins of finite values, zeros and denormals in bin 0"
        return [Problem(f"{where}.bins", "unknown-bin", f"{unknown[0]}", expected, "Record again.")]
    if (np.diff(rank_of(bins)) <= 0).any():
        return [Problem(f"{where}.bins", "unsorted", "bins out of order", "bins by rising value", "Sort the bins.")]
    return []


def _adding_up(count: np.ndarray, counts: np.ndarray, where: str) -> list[Problem]:
    """Sums in two halves of 32 bits: hostile counts may be made to wrap round to the right sum."""
    low_bits = (1 << 32) - 1
    low = (counts & low_bits).sum(-1)
    high = (counts >> 32).sum(-1) + (low >> 32)
    if ((high == count >> 32) & (low & low_bits == count & low_bits)).all():
        return []
    return [Problem(f"{where}.counts", "not-a-sum", "another sum than count", "counts that add up", "Record again.")]
