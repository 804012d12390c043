"""A convolution in stages, fitted to what it does to its patches: whitened Tucker-2 and whitened separable kernels.

A patch x has features ``(m, s)``: m is mixed first, by ``Q [m, q]``, the same at each s; a core reads what comes out,
and a last map may read the core: ``W[o, m, s] = sum over p, k of P[o, p] K[p, k, s] Q[m, k]``, nearly.

* m are the channels, s all taps: 1x1, k x k, 1x1, the Tucker-2 form (Kim et al., arXiv:1511.06530);
* m are channels and rows, s the columns: k x 1, 1 x k, 1x1, a separable kernel (Jaderberg et al., "Speeding up
  Convolutional Neural Networks with Low Rank Expansions", 2014, scheme 2).

Both are fitted in the norm of the patches' second moment, ``E|W x - V x|^2 = tr((W - V) H (W - V)^T)``. Given Q the
best core is a regression on the mixed features, and the best P then cuts off the eigenvectors of the *explained*
moment of the outputs (reduced-rank regression). With mixes that are leading columns of one basis, one Cholesky factor
serves all pairs of ranks: its leading block is the factor of the leading features. The basis is the one of the
higher-order singular value decomposition in coordinates in which a moment that is a Kronecker product of channels,
rows and columns is the identity; for any other moment Q is refined in turn with the core, which never makes it worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.damping import DAMPING, damped

Array = NDArray[np.float64]

# Roots of averages are cut off below this share of their largest eigenvalue: what never happens has no scale.
_FLOOR = 1e-7
ROUNDS = 6
_STEPS = 12
# A round that takes less than this share of the output's energy off the error is the last.
_PROGRESS = 1e-5


@dataclass(frozen=True, slots=True)
class Stages:
    """``W[o, m, s] = sum over p, k of outer[o, p] * core[p, k, s] * mix[m, k]``, nearly.

    Attributes:
        mix: ``[m, q]``.
        core: ``[p, q, s]``.
        outer: ``[o, p]`` with orthonormal columns; None where the core gives the outputs itself, p = o.
        error: share of the output's energy that is lost, by the moment as it was damped.
    """

    mix: Array
    core: Array
    outer: Array | None
    error: float

    def whole(self) -> Array:
        """``[o, m, s]``, multiplied out."""
        found: Array = np.einsum("pks,mk->pms", self.core, self.mix, optimize=True)
        return found if self.outer is None else np.tensordot(self.outer, found, 1)


class Staged:
    """A kernel decomposed once for every pair of ranks.

    Args:
        weight: ``[o, m, s]``.
        moment: ``[m * s, m * s]``, E[x x^T] with features in that order.
        damping: as of :func:`~.whitened_svd.whitened_svd`.

    Attributes:
        damping: that was needed, in units of the mean of the moment's diagonal.
        limit_in: the largest q of use, min(m, o * s); at that and full p nothing is lost.

    Raises:
        ValueError: sizes that do not fit, or numbers that are no second moment.
    """

    def __init__(self, weight: Array, moment: Array, damping: float = DAMPING) -> None:
        outputs, mixed, seen = weight.shape
        if moment.shape != (mixed * seen, mixed * seen):
            raise ValueError(f"a moment of shape {moment.shape} for a weight of shape {weight.shape}")
        whole = damped(moment, damping)
        self.damping, self.limit_in = whole.damping, min(mixed, outputs * seen)
        cells = whole.moment.reshape(mixed, seen, mixed, seen)
        self._mixed_root, self._mixed_inverse = _roots(np.einsum("asbs->ab", cells) / seen)
        # The scale of the moment is in the first root alone.
        aside = np.einsum("asat->st", cells)
        self._seen_root, self._seen_inverse = _roots(aside * seen / (np.trace(aside) or 1.0))
        self._weight = _turned(weight, self._mixed_root, self._seen_root)
        self._moment = _congruent(whole.moment, self._mixed_inverse, self._seen_inverse)
        self._basis = np.linalg.eigh(np.einsum("oas,obs->ab", self._weight, self._weight))[1][:, ::-1]
        turned = np.einsum("oms,mk->oks", self._weight, self._basis, optimize=True).reshape(outputs, -1)
        self._lower = np.linalg.cholesky(_congruent(self._moment, self._basis, np.eye(seen)))
        # The outputs in coordinates of independent features, one after the other: [m * s, o].
        self._outputs = self._lower.T @ turned.T
        self._energy = float(np.square(self._outputs).sum()) or 1.0

    def errors(self, rank_in: int) -> Array:
        """``[o + 1]`` share of the output's energy that is lost with mixes of the basis and p = 0, 1, ..., o."""
        explained = self._explained(rank_in)
        values = np.linalg.eigvalsh(explained.T @ explained)[::-1].clip(min=0.0)
        left: Array = (1.0 - np.cumsum(np.append(0.0, values)) / self._energy).clip(min=0.0)
        return left

    def stages(self, rank_in: int, rank_out: int | None = None, rounds: int = ROUNDS) -> Stages:
        """The factors of given ranks.

        Args:
            rank_in: q, 1 to :attr:`limit_in`.
            rank_out: p, 1 to o; None for p = o without a last map.
            rounds: of refinement, at most.

        Raises:
            ValueError: a rank outside of these.
        """
        outputs, _, seen = self._weight.shape
        if not (1 <= rank_in <= self.limit_in and 1 <= (outputs if rank_out is None else rank_out) <= outputs):
            raise ValueError(f"ranks {rank_in} and {rank_out} are not within 1..{self.limit_in} and 1..{outputs}")
        explained = self._explained(rank_in)
        size = rank_in * seen
        fitted = np.linalg.solve(self._lower[:size, :size].T, explained).T.reshape(outputs, rank_in, seen)
        found = self._cut(self._basis[:, :rank_in], fitted, explained, rank_out)
        for _ in range(rounds if rank_in < self.limit_in else 0):
            better = self._refitted(self._better_mix(found), rank_out)
            gained, found = found.error - better.error, min(found, better, key=lambda one: one.error)
            if gained < _PROGRESS:
                break
        mix = self._mixed_inverse @ found.mix
        core = found.core @ self._seen_inverse
        return Stages(mix, core, found.outer, found.error)

    def _explained(self, rank_in: int) -> Array:
        """``[q * s, o]``."""
        found: Array = self._outputs[: rank_in * self._weight.shape[2]]
        return found

    def _cut(self, mix: Array, fitted: Array, explained: Array, rank_out: int | None) -> Stages:
        """The stages of a core ``[o, q, s]`` whose outputs are explained so: with the best last map."""
        if rank_out is None:
            return Stages(mix, fitted, None, max(1.0 - float(np.square(explained).sum()) / self._energy, 0.0))
        values, vectors = np.linalg.eigh(explained.T @ explained)
        outer = vectors[:, ::-1][:, :rank_out]
        core = np.tensordot(outer.T, fitted, 1)
        return Stages(mix, core, outer, max(1.0 - float(values[::-1][:rank_out].sum()) / self._energy, 0.0))

    def _refitted(self, mix: Array, rank_out: int | None) -> Stages:
        """The best core for a mix."""
        mix = np.asarray(np.linalg.qr(mix)[0], np.float64)
        outputs, mixed, seen = self._weight.shape
        rank = mix.shape[1]
        half = np.tensordot(mix.T, self._moment.reshape(mixed, -1), 1).reshape(rank * seen, mixed, seen)
        gram = np.einsum("zms,mk->zks", half, mix, optimize=True).reshape(rank * seen, -1)
        lower = np.linalg.cholesky((gram + gram.T) / 2)
        cross = half.reshape(rank * seen, -1) @ self._weight.reshape(outputs, -1).T
        explained = np.asarray(np.linalg.solve(lower, cross), np.float64)
        fitted = np.asarray(np.linalg.solve(lower.T, explained), np.float64).T.reshape(outputs, rank, seen)
        return self._cut(mix, fitted, explained, rank_out)

    def _better_mix(self, found: Stages) -> Array:
        """A few steps of conjugate gradients on the mix, which is a least squares problem for a given core."""
        core, mix = found.core, found.mix
        wanted = self._weight if found.outer is None else np.tensordot(found.outer.T, self._weight, 1)

        def descent(difference: Array) -> Array:
            loss = (difference.reshape(len(core), -1) @ self._moment).reshape(difference.shape)
            steepest: Array = np.einsum("pms,pks->mk", loss, core, optimize=True)
            return steepest

        residual = descent(wanted - _mixed(core, mix))
        direction, square = residual, float(np.square(residual).sum())
        for _ in range(_STEPS):
            moved = descent(_mixed(core, direction))
            curvature = float(np.sum(direction * moved))
            if not (curvature > 0 and square > 0):
                break
            mix = mix + square / curvature * direction
            residual = residual - square / curvature * moved
            before, square = square, float(np.square(residual).sum())
            direction = residual + square / before * direction
        return mix


def by_channel(kernel: Array) -> Array:
    """A kernel ``[o, c, ...]`` as ``[o, m, s]`` with m the channels and s the taps."""
    return kernel.reshape(*kernel.shape[:2], math.prod(kernel.shape[2:]))


def by_row(kernel: Array) -> Array:
    """A kernel ``[o, c, height, width]`` as ``[o, m, s]`` with m channels and rows and s the columns."""
    return kernel.reshape(len(kernel), -1, kernel.shape[3])


def _mixed(core: Array, mix: Array) -> Array:
    found: Array = np.einsum("pks,mk->pms", core, mix, optimize=True)
    return found


def _turned(weight: Array, mixed: Array, seen: Array) -> Array:
    found: Array = np.einsum("oms,ma,sb->oab", weight, mixed, seen, optimize=True)
    return found


def _congruent(moment: Array, mixed: Array, seen: Array) -> Array:
    """``K^T H K`` for the Kronecker product K of ``mixed`` and ``seen``, one axis at a time."""
    for _ in range(2):
        cells = np.tensordot(mixed.T, moment.reshape(len(mixed), -1), 1).reshape(len(mixed), len(seen), -1)
        moment = np.einsum("st,msd->mtd", seen, cells, optimize=True).reshape(moment.shape).T
    return (moment + moment.T) / 2


def _roots(matrix: Array) -> tuple[Array, Array]:
    """The symmetric root of a positive semi-definite matrix and its inverse, weak directions cut off."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    roots = np.sqrt(values.clip(min=_FLOOR * (float(values[-1]) or 1.0)))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
