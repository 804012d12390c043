"""The whole matrix from a record of any form and storage; needs numpy only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfmeta.kinds.second_moment.geometry import Window, form_of, storage_of, window_of
from dfmeta.kinds.second_moment.spec import MATRICES
from dfmeta.numerics.correlation import decoded, from_correlations, repaired
from dfmeta.numerics.packed import unpack

Array = NDArray[np.float64]

# A record of a few megabytes may stand for a matrix that fits into no memory.
MAX_SIDE = 32_768


def matrix(tensors: Mapping[str, np.ndarray], features: int, configuration: Mapping[str, Any]) -> Array:
    """E[x x^T] of a weight operator's input, whole, symmetric and positive semi-definite.

    Args:
        tensors: of one record, as :func:`dfmeta.kinds.second_moment.spec.layout` has them; of its rows where the
            record is grouped by class.
        features: d, the record's ``feature_count``.
        configuration: of the record.

    Returns:
        ``[g, d, d]`` float64, or ``[C, g, d, d]`` for a record grouped by class; g is 1 where there is no window.
        Features of a convolution are in the order (channel, tap), taps row by row, as in a flattened weight. Exact
        for ``full`` in float32 (to rounding); otherwise what the form says, with negative eigenvalues that come from
        rounding or from the form cut off.

    Raises:
        ValueError: a configuration that cannot be read, or more than 32,768 features.
    """
    form, storage, window = form_of(configuration), storage_of(configuration), window_of(features, configuration)
    if features > MAX_SIDE:
        raise ValueError(f"a matrix of {features} features, more than {MAX_SIDE}")
    axes = tensors["mean"].ndim - 1
    lead = tensors["mean"].shape[:axes] if window is not None else (*tensors["mean"].shape[:axes], 1)
    found = np.empty((math.prod(lead), features, features))
    flat = {
        name: values.reshape(len(found), *values.shape[axes:])
        for name, values in tensors.items()
        if name not in ("count", "mean")
    }
    for row in range(len(found)):
        found[row] = _one({name: values[row] for name, values in flat.items()}, form, storage, window)
    return found.reshape(*lead, features, features)


def _one(tensors: Mapping[str, np.ndarray], form: str, storage: str, window: Window | None) -> Array:
    """``[d, d]`` of one group."""
    if form == "diagonal":
        return np.diag(tensors["diagonal"].astype(np.float64))
    if form == "kronecker":
        channels, taps = (_symmetric(tensors, form, name, storage) for name in ("channels", "taps"))
        product: Array = np.kron(repaired(channels), repaired(taps)).astype(np.float64)
        return product
    if form == "toeplitz" and window is not None:
        return repaired(_assembled(_lags(tensors, storage), window))
    return repaired(_symmetric(tensors, "full", "matrix", storage))


def _symmetric(tensors: Mapping[str, np.ndarray], form: str, name: str, storage: str) -> Array:
    if storage == "float32":
        return unpack(tensors[name]).astype(np.float64)
    diagonal = tensors[MATRICES[form][name]].astype(np.float64)
    found = from_correlations(unpack(decoded(tensors[name])), diagonal)
    np.fill_diagonal(found, diagonal)
    return found


def _lags(tensors: Mapping[str, np.ndarray], storage: str) -> Array:
    """``[L, C, C]``."""
    if storage == "float32":
        return tensors["lags"].astype(np.float64)
    diagonal = tensors["diagonal"].astype(np.float64)
    lags = from_correlations(decoded(tensors["lags"]), diagonal)
    np.fill_diagonal(lags[0], diagonal)
    return lags


def _assembled(lags: Array, window: Window) -> Array:
    """The block Toeplitz matrix: each pair of taps reads the block of its distance, or its transpose."""
    channels, taps = lags.shape[-1], window.taps
    places = list(itertools.product(*map(range, window.kernel)))
    number = {lag: place for place, lag in enumerate(window.lags())}
    whole = np.empty((channels, taps, channels, taps))
    for one, first in enumerate(places):
        for other, second in enumerate(places):
            lag = tuple(b - a for a, b in zip(first, second, strict=True))
            mirrored = tuple(-step for step in lag)
            whole[:, one, :, other] = lags[number[lag]] if lag in number else lags[number[mirrored]].T
    return whole.reshape(channels * taps, channels * taps)
