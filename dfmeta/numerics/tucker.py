"""Tucker-2: a convolution's kernel as a small core between a mix of its inputs and a mix of its outputs.

Sources: L. De Lathauwer, B. De Moor, J. Vandewalle, "A Multilinear Singular Value Decomposition" and "On the Best
Rank-1 and Rank-(R1, R2, ..., RN) Approximation of Higher-Order Tensors", both SIAM J. Matrix Anal. Appl. 21 (2000):
the starting point (HOSVD) and the iteration (HOOI); Y.-D. Kim et al., "Compression of Deep Convolutional Neural
Networks for Fast and Low Power Mobile Applications", arXiv:1511.06530: two modes only, and ranks by EVBMF.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.numerics.vbmf import evbmf

Array = NDArray[np.float64]

ITERATIONS = 100
# A step that takes less than this share of the kernel's energy off the error is the last.
_PROGRESS = 1e-12


@dataclass(frozen=True, slots=True)
class Tucker2:
    """``kernel[o, i, ...] = sum over p, q of outer[o, p] * core[p, q, ...] * inner[i, q]``, nearly.

    Attributes:
        outer: ``[c_out, r_out]`` float64, orthonormal columns.
        core: ``[r_out, r_in, ...]`` float64.
        inner: ``[c_in, r_in]`` float64, orthonormal columns.
    """

    outer: Array
    core: Array
    inner: Array

    def kernel(self) -> Array:
        """``[c_out, c_in, ...]`` what the factors multiply out to."""
        whole: Array = np.einsum("op,pq...,iq->oi...", self.outer, self.core, self.inner, optimize=True)
        return whole


def tucker2(kernel: Array, rank_out: int, rank_in: int, iterations: int = ITERATIONS) -> Tucker2:
    """The factors of given ranks whose product is nearest to a kernel, or nearly so.

    It starts from the singular vectors of both unfoldings, whose squared error is at most the sum of the energies that
    both ranks leave out, and at most twice the least possible. Each iteration then gives either factor its best value
    for the other, so that the error never grows.

    Args:
        kernel: ``[c_out, c_in, ...]``, finite.
        rank_out: 1 to the rank that the output side can have: ``min(c_out, c_in * positions)``.
        rank_in: the same of the input side.
        iterations: at most so many.

    Raises:
        ValueError: a rank outside of these.
    """
    tensor = kernel.astype(np.float64).reshape(*kernel.shape[:2], -1)
    limit_out, limit_in = limits(kernel.shape)
    if not (1 <= rank_out <= limit_out and 1 <= rank_in <= limit_in):
        raise ValueError(f"ranks {rank_out} and {rank_in} are not within 1..{limit_out} and 1..{limit_in}")
    outer = _leading(_unfolded_out(tensor), rank_out)
    inner = _leading(_unfolded_in(tensor), rank_in)
    core = _core(tensor, outer, inner)
    energy = float(np.sum(tensor**2))
    for _ in range(iterations):
        outer = _leading(_unfolded_out(np.einsum("oik,iq->oqk", tensor, inner, optimize=True)), rank_out)
        inner = _leading(_unfolded_in(np.einsum("oik,op->pik", tensor, outer, optimize=True)), rank_in)
        before, core = core, _core(tensor, outer, inner)
        # Both factors are orthonormal: the error's energy is the kernel's less the core's.
        if np.sum(core**2) - np.sum(before**2) <= _PROGRESS * energy:
            break
    return Tucker2(outer, core.reshape(rank_out, rank_in, *kernel.shape[2:]), inner)


def tucker2_ranks(kernel: Array) -> tuple[int, int]:
    """How many directions of the output and the input side rise above the noise.

    By :func:`~.vbmf.evbmf` of each unfolding; 0 where nothing does: then these ranks are no guide. A side of one
    channel has rank 1.

    Args:
        kernel: ``[c_out, c_in, ...]``, finite.
    """
    tensor = kernel.astype(np.float64).reshape(*kernel.shape[:2], -1)
    sides = _unfolded_out(tensor), _unfolded_in(tensor)
    found_out, found_in = (1 if len(side) == 1 else evbmf(side).rank for side in sides)
    return found_out, found_in


def limits(shape: tuple[int, ...]) -> tuple[int, int]:
    """The largest ranks of the output and the input side that a kernel of ``[c_out, c_in, ...]`` can have."""
    wide_out, wide_in = shape[:2]
    positions = int(np.prod(shape[2:]))
    return min(wide_out, wide_in * positions), min(wide_in, wide_out * positions)


def _unfolded_out(tensor: Array) -> Array:
    return tensor.reshape(len(tensor), -1)


def _unfolded_in(tensor: Array) -> Array:
    return tensor.swapaxes(0, 1).reshape(tensor.shape[1], -1)


def _leading(matrix: Array, rank: int) -> Array:
    """``[m, rank]`` left singular vectors; with fewer than ``rank`` columns, any others to fill up.

    The entry of largest magnitude of each is positive, since its sign means nothing.
    """
    vectors: Array = np.linalg.svd(matrix, full_matrices=matrix.shape[1] < rank)[0][:, :rank]
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(rank)] < 0, -1.0, 1.0)


def _core(tensor: Array, outer: Array, inner: Array) -> Array:
    core: Array = np.einsum("oik,op,iq->pqk", tensor, outer, inner, optimize=True)
    return core
