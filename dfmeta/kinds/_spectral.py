"""What the specifications of `spectrum` and `cross-spectrum` share: values that fall, and directions beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import REAL, TensorLayout, finite, non_negative, zero_where_unobserved

ORTHONORMAL_TOLERANCE = 1e-4


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


def number_problems(tensors: Mapping[str, np.ndarray], where: str, values: str, residual: str) -> list[Problem]:
    """Numbers that no decomposition holds: not finite, below 0, or beside a count of 0.

    Args:
        tensors: all of a record's, ``count`` and, if there is one, ``error_bound`` included.
        where: location for the problems.
        values: the tensor of eigenvalues or singular values.
        residual: the tensor that says what was left out.
    """
    numbers = {name: array for name, array in tensors.items() if name != "count"}
    found = finite(numbers, where)
    for name in ("count", values, residual, "error_bound"):
        if name in tensors:
            found += non_negative(tensors[name], f"{where}.{name}")
    return found + zero_where_unobserved(tensors["count"], numbers, where)


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
