"""Weights that make up for columns which are gone and for entries that become zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.compress._sources import Source
from dfmeta.numerics.least_squares import gains, refitted
from dfmeta.numerics.sparse_gpt import sparsified
from dfmeta.numerics.whitened_svd import bias_shift, energy

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Sparsity = float | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Repaired:
    """A weight that does the work of another one with less.

    Attributes:
        weight: ``[g, o, d]``, zero in the columns that are gone.
        shifts: by operator, ``[outputs]`` that its constant gains; None where it stays.
        error: expected squared change of the outputs that are left, as a share of their energy before.
        damping: ridge of the repair, in units of the mean of the moment's diagonal; the largest of all groups. 0 where
            nothing was solved.
        sparse_damping: the same of the sparse rule.
        dense: why the weight was not made sparse; empty where it was, or was not asked for.
        kept: ``[k]`` columns that are left.
        rows: ``[g, o]`` whether a row is left.
        form: of the record.
    """

    weight: Array
    shifts: tuple[Array | None, ...]
    error: float
    damping: float
    sparse_damping: float
    dense: str
    kept: Indices
    rows: NDArray[np.bool_]
    form: str


def repaired(
    source: Source,
    lost: Indices,
    rows_lost: Indices,
    sparsity: Sparsity | None,
    sparse_damping: float,
    *,
    variance: bool,
) -> Repaired:
    """Refit a weight to the columns that are left, make it sparse, and give its outputs their variance back.

    Args:
        source: the weight, and what is recorded of its inputs.
        lost: columns that are gone.
        rows_lost: entries of its axis of outputs that are gone.
        sparsity: as of :func:`dfmeta.numerics.sparse_gpt.sparsified`; None for none.
        sparse_damping: least ridge of that.
        variance: whether the outputs keep the variance that they had.
    """
    kept = np.setdiff1d(np.arange(source.weight.shape[2]), lost)
    rows = ~np.isin(source.operators[0].scale_of, rows_lost)
    weight, solved = np.zeros_like(source.weight), source.joint and len(lost) > 0
    dense = "" if sparsity is None else _stays_dense(source, len(kept), sparsity)
    needed = 0.0
    for group, (before, moment, damping) in enumerate(zip(source.weight, source.moment, source.damping, strict=True)):
        left = refitted(before, moment, kept, damping) if solved else before[:, kept]
        if sparsity is not None and not dense:
            inner = moment[np.ix_(kept, kept)]
            left[rows[group]], used = _sparse(source, left[rows[group]], inner, sparsity, sparse_damping)
            needed = max(needed, used)
        weight[group][:, kept] = left
        if variance and source.joint:
            weight[group] *= gains(before, weight[group], moment)[:, None]
    return Repaired(
        weight,
        tuple(_shift(source, place, weight) for place in range(len(source.operators))),
        _error(source, weight, rows),
        max(source.damping) if solved else 0.0,
        needed,
        dense,
        kept,
        rows,
        source.form,
    )


def _stays_dense(source: Source, features: int, sparsity: Sparsity) -> str:
    """Why a pattern does not fit a weight."""
    if isinstance(sparsity, float):
        return ""
    inputs = features // source.operators[0].entry.taps
    if inputs % sparsity[1]:
        return f"{inputs} inputs, which {sparsity[1]} does not divide"
    return ""


def _sparse(source: Source, weight: Array, moment: Array, sparsity: Sparsity, damping: float) -> tuple[Array, float]:
    """Columns by tap, then channel: a pattern is one of neighbouring channels, which is where hardware looks for it."""
    order = np.arange(weight.shape[1]).reshape(-1, source.operators[0].entry.taps).T.reshape(-1)
    found = np.empty_like(weight)
    found[:, order], needed = sparsified(weight[:, order], moment[np.ix_(order, order)], sparsity, damping=damping)
    return found, needed


def _shift(source: Source, place: int, weight: Array) -> Array | None:
    """What keeps an operator's mean output as it was."""
    mean, operator = source.means[place], source.operators[place]
    if mean is None:
        return None
    found = np.zeros(operator.outputs)
    for group, rows in enumerate(operator.output_of):
        found[rows] = operator.alpha * bias_shift(source.weight[group], weight[group], mean[group])
    return found


def _error(source: Source, weight: Array, rows: NDArray[np.bool_]) -> float:
    parts = list(zip(source.weight, weight, source.moment, rows, strict=True))
    lost = sum(energy((before - after)[left], moment) for before, after, moment, left in parts)
    whole = sum(energy(before[left], moment) for before, _, moment, left in parts)
    return float(lost / (whole or 1.0))
