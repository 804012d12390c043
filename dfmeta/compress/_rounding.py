"""One weight, rounded: by which rule, at which scales, and what that is expected to cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dfmeta.compress._operators import InputRecord, Operator
from dfmeta.numerics.correlation import repaired
from dfmeta.numerics.gptq import Factor, code_range, error, factorised, nearest, rounded
from dfmeta.numerics.rounding_scales import from_grid, from_largest, searched

Array = NDArray[np.float64]

# Beyond this many multiply-adds for one pass, one scale is taken and not the best of several.
_SEARCHED = 2**33
# Of finer codes, the scale of least error of rounding to nearest is as good as one that was searched for.
_COARSE = 31
# Records are float32: a variance that is a smaller share of E[x^2] is none.
_ROUNDING = 1e-6
# Features of a moment that is worth a factorisation.
MAX_FEATURES = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """What errors in a weight are weighed with.

    Attributes:
        moments: ``[g, d, d]``, or ``[g, d]`` where only the diagonal is known; ones where nothing is.
        factors: of each group's moment; empty where there is none to be factorised.
        energy: of the operator's output, ``tr(W M W^T)`` with the moment about 0.
        form: of the record; empty without one.
        count: samples of the record.
        feedback: whether columns make up for the errors of others.
        damping: the largest that a factorisation needed.
        centred: whether the mean is taken off, because the bias makes up for it.
    """

    moments: Array
    factors: tuple[Factor, ...]
    energy: float
    form: str
    count: int
    centred: bool
    feedback: bool = False
    damping: float = 0.0

    def without_feedback(self) -> Metric:
        """The same, for rounding each entry to nearest."""
        return replace(self, factors=(), feedback=False, damping=0.0)

    def without_moments(self) -> Metric:
        """The same facts, and none of the large arrays."""
        return replace(self, factors=(), moments=np.zeros((0, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """A weight as integers.

    Attributes:
        codes: ``[g, o, d]`` int8.
        scales: ``[n]`` float64 along the initializer's axis of scales; exact in float32.
        error: ``tr(dW M dW^T)``.
        bits: that the codes use.
    """

    codes: NDArray[np.int8]
    scales: Array
    error: float
    bits: int

    def values(self, operator: Operator) -> Array:
        """``[g, o, d]`` what the codes stand for."""
        found: Array = self.scales[operator.scale_of][:, :, None] * self.codes
        return found


def metric(operator: Operator, record: InputRecord, *, centred: bool, damping: float, ordered: bool) -> Metric:
    """How errors in an operator's weight show in its output, from what is recorded of its input.

    Args:
        operator: the weight.
        record: of its input; an empty one makes all columns count alike.
        centred: take the mean off, because a bias will make up for the mean error.
        damping: of the factorisation.
        ordered: round columns of large ``E[x^2]`` first.
    """
    weight = operator.weight
    if record.moment is None or record.mean is None:
        ones = np.ones((len(weight), weight.shape[2]))
        return Metric(ones, (), float(np.square(weight).sum()), "", 0, centred=False)
    energy = float(sum(error(rows, moment).sum() for rows, moment in zip(weight, record.moment, strict=True)))
    moments = record.moment
    if centred:
        moments = np.stack([_centred(moment, mean) for moment, mean in zip(moments, record.mean, strict=True)])
    if record.form == "diagonal":
        diagonal = np.stack([np.diagonal(moment) for moment in moments])
        return Metric(diagonal, (), energy, record.form, record.count, centred)
    factors: tuple[Factor, ...] = ()
    if weight.shape[2] <= MAX_FEATURES:
        factors = tuple(factorised(moment, damping, ordered=ordered) for moment in moments)
    needed = max((factor.damping for factor in factors), default=0.0)
    return Metric(moments, factors, energy, record.form, record.count, centred, bool(factors), needed)


def _centred(moment: Array, mean: Array) -> Array:
    """The covariance. Where moment and mean are not quite of the same numbers, it is made one again."""
    found = moment - np.outer(mean, mean)
    # What is left of a feature that never changes is rounding, and of either sign.
    still = np.diagonal(found) <= _ROUNDING * np.diagonal(moment)
    found[still] = 0.0
    found[:, still] = 0.0
    return repaired(found)


def round_weight(operator: Operator, known: Metric, bits: int, scales: str) -> Rounded:
    """Codes and scales of a weight.

    Args:
        operator: the weight.
        known: how its errors count; without factors, every entry is rounded to nearest.
        bits: 2 to 8.
        scales: ``search``, ``weighted``, ``grid`` or ``largest`` (:class:`dfmeta.compress.quantize.Config`).
    """
    limits, groups = code_range(bits), len(operator.weight)
    if known.factors and operator.entry.op == "Conv":
        # Each group has channels of its own.
        whole = zip(operator.weight, known.moments, known.factors, strict=True)
        parts = [_rows(weight, moment, factor, limits, scales) for weight, moment, factor in whole]
        chosen = np.concatenate([part[0] for part in parts])
        codes = np.stack([part[1] for part in parts])
    elif known.factors and groups == 1:
        shared = operator.scale_of[0] if operator.entry.op == "ConvTranspose" else None
        found = _rows(operator.weight[0], known.moments[0], known.factors[0], limits, scales, shared)
        chosen, codes = _by_channel(operator, found[0]), found[1][None]
    else:
        chosen, codes = _together(operator, known, limits, scales)
    # Where the files have float32, nothing here counts with more.
    exact = chosen.astype(np.float32).astype(np.float64)
    result = Rounded(codes, exact, 0.0, bits)
    return Rounded(codes, exact, weighed(operator, known, result.values(operator)), bits)


def _rows(
    weight: Array,
    moment: Array,
    factor: Factor,
    limits: tuple[int, int],
    scales: str,
    shared: NDArray[np.int64] | None = None,
) -> tuple[Array, NDArray[np.int8]]:
    """Scale and codes of each row of one group, with error feedback."""
    if scales == "search" and limits[1] <= _COARSE and weight.size * weight.shape[1] <= _SEARCHED:
        return searched(weight, moment, factor, *limits, shared)
    chosen = _chosen(weight, np.diagonal(moment), limits, "weighted" if scales == "search" else scales, shared)
    return chosen, rounded(weight, factor, chosen, *limits)


def _chosen(
    weight: Array, importance: Array, limits: tuple[int, int], scales: str, shared: NDArray[np.int64] | None
) -> Array:
    if scales == "largest":
        return from_largest(weight, *limits, shared)
    return from_grid(weight, *limits, importance if scales == "weighted" else None, shared)


def _by_channel(operator: Operator, rows: Array) -> Array:
    """``[n]`` along the axis of scales from ``[o]`` rows that agree where they share a channel."""
    found = np.ones(int(operator.scale_of.max()) + 1)
    found[operator.scale_of.reshape(-1)] = np.tile(rows, len(operator.scale_of))
    return found


def _together(
    operator: Operator, known: Metric, limits: tuple[int, int], scales: str
) -> tuple[Array, NDArray[np.int8]]:
    """Scales first, for groups that share them or without feedback; then the codes."""
    groups, outputs, features = operator.weight.shape
    diagonal = known.moments if known.moments.ndim == 2 else np.einsum("gii->gi", known.moments)
    rows, shared = operator.weight.reshape(groups * outputs, features), operator.scale_of.reshape(-1)
    kind = "weighted" if scales == "search" else scales
    chosen = np.ones(int(shared.max()) + 1)
    if operator.entry.op == "Conv":
        for group, channels in enumerate(operator.scale_of):
            chosen[channels] = _chosen(operator.weight[group], diagonal[group], limits, kind, None)
    else:
        chosen[shared] = _chosen(rows, diagonal.mean(0), limits, kind, shared)
    of_rows = chosen[operator.scale_of]
    if known.factors:
        parts = zip(operator.weight, known.factors, of_rows, strict=True)
        return chosen, np.stack([rounded(weight, factor, scale, *limits) for weight, factor, scale in parts])
    return chosen, nearest(rows, of_rows.reshape(-1), *limits).reshape(operator.weight.shape)


def weighed(operator: Operator, known: Metric, values: Array) -> float:
    """``tr(dW M dW^T)`` of other values for a weight ``[g, o, d]``."""
    difference = operator.weight - values
    found = sum(error(rows, moment).sum() for rows, moment in zip(difference, known.moments, strict=True))
    return max(float(found), 0.0)
