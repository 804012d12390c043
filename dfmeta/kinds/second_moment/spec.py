"""`second-moment`, version 1: count, mean and E[x x^T] of a weight operator's input, in one of four forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, REAL, TensorLayout, finite, non_negative, zero_where_unobserved
from dfmeta.kinds.second_moment.geometry import WINDOW_KEYS, Window, exact_of, form_of, storage_of, window_of

VERSION = 1
# Published numbers are rounded sums over counts: they would combine, but not within the tolerance of the kind.
MERGEABLE = False
CONVENTIONS = {
    "centering": "raw",
    "normalization": "population",
    "accumulation_dtype": "float64",
}
# Form to its matrices, and the tensor that holds the diagonal of each where only correlations are stored.
MATRICES: Mapping[str, Mapping[str, str]] = {
    "full": {"matrix": "diagonal"},
    "toeplitz": {"lags": "diagonal"},
    "kronecker": {"channels": "channels_diagonal", "taps": "taps_diagonal"},
    "diagonal": {},
}
# How far beyond 1 the correlations of float32 entries may come out.
CORRELATION_TOLERANCE = 1e-3
# Entries are within 2e-6 of exact ones, relative to the largest, and then rounded: times the side of the matrix, that
# bounds how far below 0 its eigenvalues may come out. Twice as much is allowed.
SEMI_DEFINITE_TOLERANCE = 4e-6
# The test costs the cube of the side: a hostile file must not buy hours with it.
LARGEST_TESTED_SIDE = 1024
_FIX = "Record again."


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """The tensors of one record.

    Args:
        features: d, the length of one feature vector; of a convolution, channels of one of its groups times taps.
        groups: C, the number of groups of units, or None for one record over all units.
        configuration: ``form``, ``storage``, for a convolution its window, and ``exact``, as the kind's page says.

    Returns:
        ``count`` int64 ``[]``; ``mean`` ``[d]``; the form's matrices. Each with a leading ``C`` when grouped, and all
        but ``count`` with an axis of convolution groups (after ``C``) where there is a window.

    Raises:
        ValueError: any other configuration.
    """
    form, storage, window = form_of(configuration), storage_of(configuration), window_of(features, configuration)
    exact_of(configuration)
    observed = configuration.get("mean_observed", True)
    if type(observed) is not bool:
        raise ValueError(f"mean_observed {ascii(observed)[:40]}, not true or false")
    lead = () if groups is None else (groups,)
    each = lead if window is None else (*lead, window.groups)
    found = {"count": TensorLayout(COUNT, lead), "mean": TensorLayout(REAL, (*each, features))}
    if form == "diagonal":
        return found | {"diagonal": TensorLayout(REAL, (*each, features))}
    stored = REAL if storage == "float32" else frozenset({storage})
    for name, (shape, side) in _shapes(form, features, window).items():
        found[name] = TensorLayout(stored, (*each, *shape))
        if storage != "float32":
            found[MATRICES[form][name]] = TensorLayout(REAL, (*each, side))
    return found


def fits(features: str, configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration goes with what a record says of its features: patches, and only they, have a window."""
    return (features == "patch") == any(key in configuration for key in WINDOW_KEYS)


def _shapes(form: str, features: int, window: Window | None) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of each of a form's matrices, and the length of its diagonal."""
    if form == "full" or window is None:
        return {"matrix": ((_packed(features),), features)}
    channels = features // window.taps
    if form == "toeplitz":
        return {"lags": ((window.lag_count, channels, channels), channels)}
    return {"channels": ((_packed(channels),), channels), "taps": ((_packed(window.taps),), window.taps)}


def _packed(side: int) -> int:
    return side * (side + 1) // 2


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind: no numbers, or no second moments of anything."""
    values = {name: values for name, values in tensors.items() if name != "count"}
    found = [
        *finite(values, where),
        *non_negative(tensors["count"], f"{where}.count"),
        *zero_where_unobserved(tensors["count"], values, where),
    ]
    for name, values_of in values.items():
        if name.endswith("diagonal"):
            found += non_negative(values_of, f"{where}.{name}")
    if found:
        return found
    for name in ("matrix", "channels", "taps", "lags"):
        if name in tensors:
            found += _problems(name, tensors[name], where)
    return found


def _problems(name: str, values: np.ndarray, where: str) -> list[Problem]:
    """Of one matrix: correlations out of range, a diagonal below 0, too large entries, or a negative eigenvalue."""
    place = f"{where}.{name}"
    correlations = values.dtype in (np.int8, np.float16)
    found = _in_range(values, place) if correlations else []
    if name == "lags":
        zero = values[..., 0, :, :]
        if correlations:
            return found or _symmetric(zero, place)
        diagonal = np.diagonal(zero, axis1=-2, axis2=-1)
        return non_negative(diagonal, place) or _symmetric(zero, place)
    if correlations:
        return found
    side = (math.isqrt(8 * values.shape[-1] + 1) - 1) // 2
    starts = np.arange(side) * np.arange(1, side + 1) // 2
    diagonal = values[..., starts + np.arange(side)]
    found = non_negative(diagonal, place) or _bounded(values, diagonal, starts, place)
    # Factors of a Kronecker product come out of sums over the other factor, whose rounding no such bound holds.
    return found or (_semi_definite(values, diagonal, place) if name == "matrix" else [])


def _in_range(values: np.ndarray, place: str) -> list[Problem]:
    largest = 127 if values.dtype == np.int8 else 1
    # As int16: the magnitude of -128 does not fit into int8.
    magnitude = np.abs(values.astype(np.int16) if values.dtype == np.int8 else values).max(initial=0)
    if magnitude <= largest:
        return []
    return [Problem(place, "not-a-correlation", f"{magnitude}", f"magnitudes of at most {largest}", _FIX)]


def _symmetric(zero: np.ndarray, place: str) -> list[Problem]:
    if np.array_equal(zero, zero.swapaxes(-2, -1)):
        return []
    return [Problem(place, "not-symmetric", "lag 0 that is not symmetric", "a symmetric matrix at lag 0", _FIX)]


def _bounded(packed: np.ndarray, diagonal: np.ndarray, starts: np.ndarray, place: str) -> list[Problem]:
    """The Cauchy-Schwarz inequality, row by row; what rounding may add is allowed for."""
    roots = np.sqrt(diagonal.astype(np.float64))
    for row, start in enumerate(starts.tolist()):
        entries = np.abs(packed[..., start : start + row + 1].astype(np.float64))
        bound = roots[..., : row + 1] * roots[..., row : row + 1] * (1 + CORRELATION_TOLERANCE)
        if (entries > bound + np.finfo(np.float32).tiny).any():
            expected = "entries of at most the root of the two diagonal entries' product"
            return [Problem(place, "not-a-moment", f"a larger entry in row {row}", expected, _FIX)]
    return []


def _semi_definite(packed: np.ndarray, diagonal: np.ndarray, place: str) -> list[Problem]:
    """No eigenvalue below 0 by more than rounding explains: a Cholesky factor of the shifted matrix exists."""
    side = diagonal.shape[-1]
    if side > LARGEST_TESTED_SIDE:
        return []
    rows, columns = np.tril_indices(side)
    for triangle, largest in zip(packed.reshape(-1, packed.shape[-1]), diagonal.reshape(-1, side).max(-1), strict=True):
        if not largest > 0:
            continue
        matrix = np.zeros((side, side))
        matrix[rows, columns] = triangle / np.float64(largest)  # its upper half is not looked at
        matrix[np.diag_indices(side)] += SEMI_DEFINITE_TOLERANCE * side
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            expected = "no eigenvalue below 0 but for rounding"
            return [Problem(place, "not-semi-definite", "a matrix that is not", expected, _FIX)]
    return []
