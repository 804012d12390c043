"""`spectrum`, version 1: mean, leading eigenpairs of the covariance and the trace they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, REAL, TensorLayout, finite, non_negative, zero_where_unobserved

VERSION = 1
# What the truncation left out is needed to combine two of these.
MERGEABLE = False
CONVENTIONS = {
    "centering": "central",
    "normalization": "population",
    "accumulation_dtype": "float64",
}
ORTHONORMAL_TOLERANCE = 1e-4


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """The tensors of one record.

    Args:
        features: d, the number of features.
        groups: C, the number of groups, or None for one record over all units.
        configuration: ``rank`` is k, how many eigenpairs are kept: an integer from 1 to d.

    Raises:
        ValueError: any other ``rank``, or none.

    Returns:
        ``count`` int64 ``[]`` or ``[C]``; ``mean`` ``[d]``; ``eigenvalues`` ``[k]``, falling;
        ``eigenvectors`` ``[k, d]``, one unit vector a row (all zero beyond what a group may keep);
        ``residual_trace`` ``[]``: trace of the covariance less the kept eigenvalues. Each with a leading
        ``C`` when grouped.
    """
    rank = configuration.get("rank")
    # A manifest may hold anything here, and true is an int to Python.
    if type(rank) is not int or not 1 <= rank <= features:
        raise ValueError(f"rank {ascii(rank)[:40]}, not an integer from 1 to {features}")
    lead = () if groups is None else (groups,)
    return {
        "count": TensorLayout(COUNT, lead),
        "mean": TensorLayout(REAL, (*lead, features)),
        "eigenvalues": TensorLayout(REAL, (*lead, rank)),
        "eigenvectors": TensorLayout(REAL, (*lead, rank, features)),
        "residual_trace": TensorLayout(REAL, lead),
    }


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind."""
    values = {name: values for name, values in tensors.items() if name != "count"}
    found = finite(values, where)
    for name in ("count", "eigenvalues", "residual_trace"):
        found += non_negative(tensors[name], f"{where}.{name}")
    found += zero_where_unobserved(tensors["count"], values, where)
    if not found:
        found = [*_falling(tensors["eigenvalues"], where), *_orthonormal(tensors["eigenvectors"], where)]
    return found


def _falling(eigenvalues: np.ndarray, where: str) -> list[Problem]:
    if (np.diff(eigenvalues, axis=-1) <= 0).all():
        return []
    return [Problem(f"{where}.eigenvalues", "unsorted", "a rising pair", "eigenvalues that fall", "Sort the pairs.")]


def _orthonormal(vectors: np.ndarray, where: str) -> list[Problem]:
    """Rows must be orthonormal, or all zero where a group keeps fewer pairs than the record has room for."""
    stacks = vectors.reshape(-1, *vectors.shape[-2:]).astype(np.float64)
    for stack in stacks:
        with np.errstate(over="ignore", invalid="ignore"):  # hostile numbers; what comes of them is refused below
            gram = stack @ stack.T
        kept = np.diag(gram) > 0
        error = np.abs(gram - np.diag(kept.astype(np.float64))).max(initial=0.0)
        if not error <= ORTHONORMAL_TOLERANCE:
            return [
                Problem(
                    f"{where}.eigenvectors",
                    "not-orthonormal",
                    f"a Gram matrix off by {error:.2g}",
                    f"orthonormal rows within {ORTHONORMAL_TOLERANCE:g}",
                    "Record again.",
                )
            ]
    return []
