"""Fewer inputs for a linear map, in least squares: which may go, and what the others then have to do.

A linear map ``W [o, d]`` reads a random vector x with second moment ``C = E[x x^T]``. When only the entries S of x are
left, the map that comes closest, ``min_V E|W x - V x_S|^2``, is ``V = W C[:, S] C[S, S]^-1``, and what remains is
``tr(W C W^T) - tr(V C[S, S] V^T)``. This is the closed form behind channel pruning by reconstruction (He et al.,
"Channel Pruning for Accelerating Very Deep Neural Networks", 2017; Luo et al., "ThiNet", 2017).

A map ``W x + a`` may change its constant as well. The best one is ``a + W E[x] - V E[x_S]``, whatever V is
(:func:`dfmeta.numerics.whitened_svd.bias_shift`), and what is left to minimise is the same problem with the covariance
in place of C (:func:`dfmeta.numerics.whitened_svd.centred`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.damping import require_moment, ridged, unit

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

DAMPING = 1e-3


def refitted(weight: Array, moment: Array, kept: Indices, damping: float = DAMPING) -> Array:
    """The weight that reads ``x[kept]`` and comes closest to what ``weight`` makes of the whole x.

    Args:
        weight: ``[o, d]``.
        moment: ``[d, d]``, E[x x^T]: symmetric, positive semi-definite.
        kept: ``[k]`` indices of the entries of x that are left.
        damping: ridge, in units of the mean of ``moment``'s diagonal: a small pull towards the kept columns of
            ``weight`` itself, which decides where the moment says nothing.

    Returns:
        ``[o, k]``: ``W_S + W_R C[R, S] (C[S, S] + ridge)^-1``, R being the entries that are gone. Without ridge this is
        ``W C[:, S] C[S, S]^-1``.

    Raises:
        ValueError: sizes that do not fit, or a moment or damping that leaves nothing to solve.
    """
    _check(weight, moment, damping)
    gone = np.setdiff1d(np.arange(weight.shape[1]), kept)
    if not len(gone):
        return weight[:, kept]
    solved = np.linalg.solve(_damped(moment, damping)[np.ix_(kept, kept)], moment[np.ix_(kept, gone)])
    return weight[:, kept] + weight[:, gone] @ solved.T


def gains(weight: Array, replaced: Array, moment: Array) -> Array:
    """What each row of V has to be multiplied with to give its output the variance that W gave it.

    A map that is fitted by least squares loses variance with everything that it cannot explain: what is left is closest
    in each single layer, and fades from layer to layer. Giving it back costs ``2 (1 - sqrt(1 - e))`` of the variance in
    place of e, which is nearly the same where e is small (the rescaling of Jordan et al., "REPAIR: REnormalizing
    Permuted Activations for Interpolation Repair", 2023, here from second moments).

    Args:
        weight: ``[o, d]``, W.
        replaced: ``[o, d]``, V.
        moment: ``[d, d]``: the covariance, where a constant is corrected afterwards.

    Returns:
        ``[o]``, above 0; 1 where either output never varies.
    """
    before, after = (np.einsum("od,od->o", one @ moment, one) for one in (weight, replaced))
    usable = (before > 0) & (after > 0)
    found: Array = np.sqrt(np.divide(before, after, out=np.ones_like(before), where=usable))
    return found


def residual(weight: Array, moment: Array, kept: Indices, fitted: Array) -> float:
    """``E|W x - V x_S|^2`` of a weight V ``[o, k]`` on ``x[kept]``, in squared units of the output."""
    difference = weight.copy()
    difference[:, kept] -= fitted
    return float(np.einsum("oi,ij,oj->", difference, moment, difference))


class Reader:
    """One linear map of several that read the same blocks of entries, while blocks are taken away one by one.

    After each removal the map is refitted to the entries that are left. Both the weight and the inverse moment are
    updated by block elimination, in O(d^2 b) for a block of b entries (the structured form of the optimal brain
    surgeon, Hassibi and Stork, 1993; Kurtic et al., "ZipLM", 2023, eq. 3 to 5).

    Args:
        weight: ``[o, d]``.
        moment: ``[d, d]``.
        blocks: ``[n, b]`` indices of each block's entries.
        damping: as of :func:`refitted`.
        energy: what costs are a share of; by default that of this map's own output, ``tr(W C W^T)``.

    Raises:
        ValueError: as :func:`refitted`.
    """

    def __init__(
        self, weight: Array, moment: Array, blocks: Indices, damping: float = DAMPING, energy: float | None = None
    ) -> None:
        _check(weight, moment, damping)
        self._weight = weight.copy()
        damped = _damped(moment, damping)
        self._inverse = np.linalg.inv(damped)
        self._blocks = blocks
        self._scale = (float(np.vdot(weight @ damped, weight)) if energy is None else energy) or 1.0

    def costs(self, left: Indices) -> Array:
        """What taking away each of the blocks ``left`` would add to the error, as a share of the output's energy.

        Returns:
            ``[len(left)]``: ``tr(W_b (C^-1)_bb^-1 W_b^T)`` over ``tr(W C W^T)`` of the whole.
        """
        blocks = self._blocks[left]
        inner = self._inverse[blocks[:, :, None], blocks[:, None, :]]
        columns = np.moveaxis(self._weight[:, blocks], 0, 2)
        shares: Array = np.einsum("nbo,nbo->n", columns, np.linalg.solve(inner, columns)) / self._scale
        return shares

    def take_away(self, block: int) -> None:
        """Remove a block and let the others make up for it."""
        gone = self._blocks[block]
        factor = np.linalg.solve(self._inverse[np.ix_(gone, gone)], self._inverse[gone])
        self._weight -= self._weight[:, gone] @ factor
        self._inverse -= self._inverse[:, gone] @ factor
        # Exact zeros: rounding would otherwise come back through the pivots of later blocks.
        self._weight[:, gone] = 0
        self._inverse[gone] = self._inverse[:, gone] = 0


class DiagonalReader:
    """As :class:`Reader` for entries that have nothing to do with each other: none makes up for another.

    Args:
        weight: ``[o, d]``.
        diagonal: ``[d]``, E[x^2] of each entry; ones, to go by the weight's norms alone.
        blocks: ``[n, b]`` indices of each block's entries.
        energy: as of :class:`Reader`.
    """

    def __init__(self, weight: Array, diagonal: Array, blocks: Indices, energy: float | None = None) -> None:
        parts = np.square(weight).sum(0) * diagonal
        self._shares: Array = parts[blocks].sum(1) / ((float(parts.sum()) if energy is None else energy) or 1.0)

    def costs(self, left: Indices) -> Array:
        """Each block's share of the output's energy, ``[len(left)]``."""
        return self._shares[left]

    def take_away(self, block: int) -> None:
        """Remove a block: nothing else changes."""


def energies(weight: Array, moment: Array, blocks: Indices) -> Array:
    """What each block alone contributes to the output, in squared units of it: ``tr(W_b C_bb W_b^T)``.

    Args:
        weight: ``[o, d]``.
        moment: ``[d, d]``.
        blocks: ``[n, b]`` indices of each block's entries.

    Returns:
        ``[n]``: what leaving out a block costs when nothing makes up for it.
    """
    inner = moment[blocks[:, :, None], blocks[:, None, :]]
    columns = np.moveaxis(weight[:, blocks], 0, 2)
    found: Array = np.einsum("nbo,nbo->n", columns, inner @ columns)
    return found


def chosen(readers: Sequence[Reader | DiagonalReader], blocks: int, keep: int) -> Indices:
    """The blocks to keep, found by taking away the one that costs all readers together least, again and again.

    Args:
        readers: every linear map that reads the blocks; each counts relative to its own output.
        blocks: how many there are.
        keep: how many shall stay, 1 to ``blocks``.

    Returns:
        ``[keep]``, ascending.

    Raises:
        ValueError: no reader, or a number that cannot stay.
    """
    if not readers or not 1 <= keep <= blocks:
        raise ValueError(f"{keep} of {blocks} blocks for {len(readers)} readers")
    return np.setdiff1d(np.arange(blocks), eliminated(readers, np.arange(blocks), blocks - keep)[0])


def eliminated(
    readers: Sequence[Reader | DiagonalReader], candidates: Indices, count: int, order: Indices | None = None
) -> tuple[Indices, Array]:
    """Blocks taken away one by one, and what each cost when its turn came.

    Args:
        readers: every linear map that reads the blocks; they are left without the blocks that went.
        candidates: ``[n]`` blocks that may go.
        count: how many shall go, 0 to n.
        order: ``[n]`` the candidates in the order in which they go; by default that which costs all readers together
            least goes, again and again.

    Returns:
        ``[count]`` blocks in the order in which they went, and ``[count]`` the sums of the readers' costs.
    """
    left, gone, costs = candidates, np.empty(count, np.int64), np.empty(count)
    for turn in range(count):
        asked = left if order is None else order[turn : turn + 1]
        found = np.sum([reader.costs(asked) for reader in readers], axis=0)
        gone[turn], costs[turn] = asked[np.argmin(found)], found.min()
        for reader in readers:
            reader.take_away(int(gone[turn]))
        left = left[left != gone[turn]]
    return gone, costs


def _damped(moment: Array, damping: float) -> Array:
    return ridged(moment, damping * unit(moment))


def _check(weight: Array, moment: Array, damping: float) -> None:
    if weight.ndim != 2 or moment.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(f"a moment of shape {moment.shape} for a weight of shape {weight.shape}")
    require_moment(moment, damping)
