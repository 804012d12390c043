"""Low rank by what a map does to its inputs, not by its numbers: the whitened singular value decomposition.

A linear map ``W [o, d]`` reads a random vector x with second moment ``H = E[x x^T]``. The best map of rank r,
``min E|W x - A B x|^2 = tr((W - A B) H (W - A B)^T)``, cuts off the singular value decomposition of ``W H^(1/2)``
(Eckart and Young, 1936, in the norm that H gives; Wang et al., "SVD-LLM", arXiv:2403.07378, whiten by a Cholesky factor
of H). Its left singular vectors are the eigenvectors of the outputs' own second moment ``G = W H W^T``, so that
``A = U_r`` and ``B = U_r^T W``: the rank-r map projects the outputs on their principal directions. H is never inverted,
a moment of low rank does no harm, and the errors of all ranks are the tails of one list of energies.

With the mean mu of x a constant may be refitted too (:func:`centred`, :func:`bias_shift`): then the outputs' covariance
takes the place of their second moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.damping import DAMPING, damped

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WhitenedSvd:
    """A map decomposed once for every rank.

    Attributes:
        weight: ``[o, d]``, as given.
        basis: ``[o, k]`` orthonormal columns, k = min(o, d): directions of the output, that of most energy first.
        energies: ``[k]`` E of the squared output along each, by the moment as it was given.
        damping: that was needed, see :func:`dfmeta.numerics.damping.damped`.
    """

    weight: Array
    basis: Array
    energies: Array
    damping: float

    @property
    def errors(self) -> Array:
        """``[k + 1]`` share of the output's energy that rank 0, 1, ..., k leaves out; 1 at rank 0, never rising."""
        left: Array = np.append(np.cumsum(self.energies[::-1])[::-1], 0.0)
        return left / (left[0] or 1.0)

    def factors(self, rank: int) -> tuple[Array, Array]:
        """``A [o, rank]`` with orthonormal columns and ``B [rank, d]``, whose product is the best of that rank.

        Raises:
            ValueError: a rank outside of 1 to min(o, d).
        """
        if not 1 <= rank <= len(self.energies):
            raise ValueError(f"rank {rank} is not within 1..{len(self.energies)}")
        outer = self.basis[:, :rank]
        return outer, outer.T @ self.weight


def whitened_svd(weight: Array, moment: Array, damping: float = DAMPING) -> WhitenedSvd:
    """Decompose a map by the energy of its outputs.

    Args:
        weight: ``[o, d]``.
        moment: ``[d, d]``, E[x x^T] of what it reads; the identity gives the plain decomposition.
        damping: at least so much is added to the moment's diagonal, in units of its mean, for the order of directions:
            what the moment does not see is then decided as a plain decomposition would. More is added where a moment
            has negative eigenvalues.

    Raises:
        ValueError: sizes that do not fit, or numbers that are no second moment.
    """
    if weight.ndim != 2 or moment.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(f"a moment of shape {moment.shape} for a weight of shape {weight.shape}")
    whole = damped(moment, damping)
    outputs, features = weight.shape
    # A tall map's outputs lie in a space of d dimensions, and are decomposed there.
    frame, inner = (None, weight) if outputs <= features else np.linalg.qr(weight)
    vectors = np.linalg.eigh(_symmetric(inner @ whole.moment @ inner.T))[1][:, ::-1]
    basis = vectors if frame is None else frame @ vectors
    turned = vectors.T @ inner
    energies = np.einsum("kd,kd->k", turned @ moment, turned)
    if not energies.sum() > 0:
        energies = np.einsum("kd,kd->k", turned @ whole.moment, turned)
    return WhitenedSvd(weight, basis, energies.clip(min=0.0), whole.damping)


def centred(moment: Array, mean: Array) -> Array:
    """The covariance ``H - mu mu^T`` ``[d, d]``, no entry of its diagonal below 0.

    Args:
        moment: ``[d, d]``, E[x x^T].
        mean: ``[d]``, E[x].
    """
    found = moment - np.outer(mean, mean)
    np.fill_diagonal(found, np.diagonal(found).clip(min=0.0))
    return found


def bias_shift(weight: Array, replaced: Array, mean: Array) -> Array:
    """``(W - V) mu`` ``[o]``: what the bias gains when V takes W's place, so that the mean output stays."""
    found: Array = (weight - replaced) @ mean
    return found


def relative_error(weight: Array, replaced: Array, moment: Array) -> float:
    """``tr((W - V) H (W - V)^T) / tr(W H W^T)``; 0 where the map's outputs have no energy.

    Args:
        weight: ``[o, d]``.
        replaced: ``[o, d]``, what takes its place.
        moment: ``[d, d]``.
    """
    return energy(weight - replaced, moment) / (energy(weight, moment) or 1.0)


def energy(weight: Array, moment: Array) -> float:
    """``tr(W H W^T)``, E|W x|^2, in squared units of the output; never below 0."""
    return max(float(np.einsum("od,od->", weight @ moment, weight)), 0.0)


def _symmetric(matrix: Array) -> Array:
    found: Array = (matrix + matrix.T) / 2
    return found
