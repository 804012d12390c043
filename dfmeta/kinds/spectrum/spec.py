"""`spectrum`, version 1: mean, leading eigenpairs of the covariance and the trace they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, REAL, TensorLayout
from dfmeta.kinds._spectral import falling, integer, number_problems, orthonormal, sketch_layout

VERSION = 1
# What the truncation left out is needed to combine two of these.
MERGEABLE = False
CONVENTIONS = {
    "centering": "central",
    "normalization": "population",
    "accumulation_dtype": "float64",
}


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """The tensors of one record.

    Args:
        features: d, the number of features.
        groups: C, the number of groups, or None for one record over all units.
        configuration: ``rank`` is k, how many eigenpairs are kept: an integer from 1 to d. ``sketch``, if it is
            there, is l, the directions of the sketch that they were taken from: an integer from k to d.

    Raises:
        ValueError: any other ``rank`` or ``sketch``, or no ``rank``.

    Returns:
        ``count`` int64 ``[]`` or ``[C]``; ``mean`` ``[d]``; ``eigenvalues`` ``[k]``, falling;
        ``eigenvectors`` ``[k, d]``, one unit vector a row (all zero beyond what a group may keep);
        ``residual_trace`` ``[]``: trace of the covariance less the kept eigenvalues; with ``sketch`` also
        ``error_bound`` ``[]``: how far the sketched covariance may be below the true one in any direction.
        Each with a leading ``C`` when grouped.
    """
    rank = integer(configuration, "rank", 1, features)
    lead = () if groups is None else (groups,)
    return {
        "count": TensorLayout(COUNT, lead),
        "mean": TensorLayout(REAL, (*lead, features)),
        "eigenvalues": TensorLayout(REAL, (*lead, rank)),
        "eigenvectors": TensorLayout(REAL, (*lead, rank, features)),
        "residual_trace": TensorLayout(REAL, lead),
        **sketch_layout(configuration, rank, features, lead),
    }


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind."""
    return number_problems(tensors, where, "eigenvalues", "residual_trace") or [
        *falling(tensors["eigenvalues"], f"{where}.eigenvalues"),
        *orthonormal(tensors["eigenvectors"], f"{where}.eigenvectors"),
    ]
