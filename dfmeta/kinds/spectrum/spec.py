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


def integer(configuration: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """A member of a configuration that must be an integer in a range.

    Raises:
        ValueError: anything else: a manifest may hold whatever it likes there.
    """
    value = configuration.get(name)
    # True is an int to Python.
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} {ascii(value)[:40]}, not an integer from {least} to {most}")
    return value


def sketch_layout(
    configuration: Mapping[str, Any], rank: int, width: int, lead: tuple[int, ...]
) -> dict[str, TensorLayout]:
    """What ``sketch`` adds to a layout: ``error_bound``, if the configuration has it.

    Args:
        configuration: ``sketch``, if it is there, is l: an integer from ``rank`` to ``width``.
        rank: k.
        width: length of a row of the sketch.
        lead: the group axis, if there is one.

    Raises:
        ValueError: any other ``sketch``.
    """
    if "sketch" not in configuration:
        return {}
    integer(configuration, "sketch", rank, width)
    return {"error_bound": TensorLayout(REAL, lead)}


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind."""
    values = {name: values for name, values in tensors.items() if name != "count"}
    found = finite(values, where)
    for name in ("count", "eigenvalues", "residual_trace", "error_bound"):
        if name in tensors:
            found += non_negative(tensors[name], f"{where}.{name}")
    found += zero_where_unobserved(tensors["count"], values, where)
    if not found:
        found = [
            *falling(tensors["eigenvalues"], f"{where}.eigenvalues"),
            *orthonormal(tensors["eigenvectors"], f"{where}.eigenvectors"),
        ]
    return found


def falling(values: np.ndarray, where: str) -> list[Problem]:
    """A problem if ``[..., k]`` values rise along their last axis."""
    if (np.diff(values, axis=-1) <= 0).all():
        return []
    return [Problem(where, "unsorted", "a rising pair", "values that fall", "Sort the pairs.")]


def orthonormal(vectors: np.ndarray, where: str) -> list[Problem]:
    """Rows must be orthonormal, or all zero where a group keeps fewer pairs than the record has room for."""
    stacks = vectors.reshape(-1, *vectors.shape[-2:]).astype(np.float64)
    for stack in stacks:
        with np.errstate(over="ignore", invalid="ignore"):  # hostile numbers; what comes of them is refused below
            gram = stack @ stack.T
        kept = np.diag(gram) > 0
        error = np.abs(gram - np.diag(kept.astype(np.float64))).max(initial=0.0)
        if not error <= ORTHONORMAL_TOLERANCE:
            expected = f"orthonormal rows within {ORTHONORMAL_TOLERANCE:g}"
            return [Problem(where, "not-orthonormal", f"a Gram matrix off by {error:.2g}", expected, "Record again.")]
    return []
