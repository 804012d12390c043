"""`cross-spectrum`, version 1: truncated singular value decomposition of the cross-covariance of two sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, REAL, TensorLayout
from dfmeta.kinds._spectral import falling, integer, number_problems, orthonormal, sketch_layout

VERSION = 1
# It relates two sites: the record's own, on the left, and its paired site, on the right.
PAIRED = True
# What the truncation left out is needed to combine two of these.
MERGEABLE = False
CONVENTIONS = {
    "centering": "central",
    "normalization": "population",
    "accumulation_dtype": "float64",
}
# The largest integer that a manifest can hold.
LARGEST_FEATURE_COUNT = 2**53 - 1


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """The tensors of one record.

    Args:
        features: d1, the number of features of the record's site.
        groups: C, the number of groups, or None for one record over all units.
        configuration: ``paired_feature_count`` is d2, that of the paired site: an integer from 1. ``rank`` is k, how
            many pairs are kept: an integer from 1 to the smaller of d1 and d2. ``sketch``, if it is there, is l,
            the directions of the sketch that they were taken from: an integer from k to d1 + d2.

    Raises:
        ValueError: any other value of these.

    Returns:
        ``count`` int64 ``[]`` or ``[C]``; ``mean`` ``[d1]``; ``paired_mean`` ``[d2]``; ``singular_values``
        ``[k]``, falling; ``left`` ``[k, d1]`` and ``right`` ``[k, d2]``, one unit vector a row (all zero beyond
        what a group may keep); ``residual`` ``[]``: Frobenius norm of what the pairs leave out; with ``sketch`` also
        ``error_bound`` ``[]``: how far the sketched cross-covariance may be from the true one, in spectral norm.
        Each with a leading ``C`` when grouped.
    """
    paired = integer(configuration, "paired_feature_count", 1, LARGEST_FEATURE_COUNT)
    rank = integer(configuration, "rank", 1, min(features, paired))
    lead = () if groups is None else (groups,)
    return {
        "count": TensorLayout(COUNT, lead),
        "mean": TensorLayout(REAL, (*lead, features)),
        "paired_mean": TensorLayout(REAL, (*lead, paired)),
        "singular_values": TensorLayout(REAL, (*lead, rank)),
        "left": TensorLayout(REAL, (*lead, rank, features)),
        "right": TensorLayout(REAL, (*lead, rank, paired)),
        "residual": TensorLayout(REAL, lead),
        **sketch_layout(configuration, rank, features + paired, lead),
    }


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind."""
    return number_problems(tensors, where, "singular_values", "residual") or [
        *falling(tensors["singular_values"], f"{where}.singular_values"),
        *orthonormal(tensors["left"], f"{where}.left"),
        *orthonormal(tensors["right"], f"{where}.right"),
        *_complete(tensors, where),
    ]


def _complete(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """A pair is a value, a left and a right vector: none of the three may be zero where another is not."""
    left, right = (tensors[name].any(axis=-1) for name in ("left", "right"))
    if (left == right).all() and not (tensors["singular_values"][~left] > 0).any():
        return []
    found = "a singular value or vector whose partner is 0"
    return [Problem(where, "incomplete-pair", found, "both vectors of each pair, or neither", "Record again.")]
