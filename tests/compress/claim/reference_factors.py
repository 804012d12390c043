"""Low rank with the data at hand: decompositions of what a layer makes of its samples.

Whitened singular value decomposition: Wang et al., "SVD-LLM", 2024, arXiv:2403.07378, here without any whitening: the
outputs of all samples are decomposed themselves. Kernels in stages (Kim et al., arXiv:1511.06530; Jaderberg et al.,
2014): least squares on the samples, the mix and the core in turn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def with_ridge(samples: Array, share: float = 0.01) -> Array:
    """One more sample for each feature, of that feature alone, of this share of its own energy and a trace of all's."""
    energy = np.square(samples).sum(0)
    return np.vstack([samples, np.diag(np.sqrt(share * energy + 1e-6 * energy.mean()))])


def low_rank(weight: Array, samples: Array, rank: int) -> Array:
    """The best ``[o, d]`` of a rank, for these samples."""
    leading = np.linalg.svd(with_ridge(samples) @ weight.T, full_matrices=False)[2][:rank]
    found: Array = leading.T @ leading @ weight
    return found


def staged(kernel: Array, samples: Array, rank_in: int, rank_out: int, rounds: int = 6) -> Array:
    """``[o, m, s]`` of the form ``sum over p, k of P[o, p] K[p, k, s] Q[m, k]``, fitted to samples.

    Args:
        kernel: ``[o, m, s]``.
        samples: ``[n, m * s]``, features in that order.
        rank_in: of Q.
        rank_out: of P.
        rounds: of better mixes, at most.
    """
    outputs, mixed, seen = kernel.shape
    x = with_ridge(samples).reshape(-1, mixed, seen)
    # Coordinates in which samples of independent channels and taps have no scale.
    channels = np.einsum("nas,nbs->ab", x, x) / seen
    taps = np.einsum("nas,nat->st", x, x)
    out_of, into = zip(_root(channels), _root(taps * seen / np.trace(taps)), strict=True)
    x = np.einsum("nms,ma,st->nat", x, into[0], into[1], optimize=True)
    kernel = np.einsum("oms,ma,st->oat", kernel, out_of[0], out_of[1], optimize=True)
    wanted = np.einsum("oms,nms->no", kernel, x, optimize=True)
    unfolded = kernel.transpose(1, 0, 2).reshape(mixed, -1)
    mix = np.linalg.svd(unfolded, full_matrices=False)[0][:, :rank_in]
    error, core, last = _regressed(x, mix, wanted, rank_out)
    for _ in range(rounds if rank_in < min(mixed, outputs * seen) else 0):
        better = np.linalg.qr(_descended(x, mix, core, wanted @ last))[0]
        new = _regressed(x, better, wanted, rank_out)
        gained = error - new[0]
        if gained > 0:
            mix, (error, core, last) = better, new
        if gained < 1e-5:
            break
    found: Array = np.einsum("op,pks,mk,am,st->oat", last, core, mix, into[0], into[1].T, optimize=True)
    return found


def _root(matrix: Array) -> tuple[Array, Array]:
    """The symmetric root and its inverse."""
    values, vectors = np.linalg.eigh(matrix)
    roots = np.sqrt(values.clip(min=1e-7 * values[-1]))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _regressed(x: Array, mix: Array, wanted: Array, rank: int) -> tuple[float, Array, Array]:
    """Share of the outputs lost, core ``[p, k, s]`` and last map ``[o, p]`` that are best for a mix."""
    read = np.einsum("nms,mk->nks", x, mix).reshape(len(x), -1)
    fitted = np.linalg.lstsq(read, wanted, rcond=None)[0]
    last = np.linalg.svd(read @ fitted, full_matrices=False)[2][:rank].T
    core = (fitted @ last).T.reshape(rank, mix.shape[1], x.shape[2])
    lost = np.square(wanted - read @ fitted @ last @ last.T).sum() / np.square(wanted).sum()
    return float(lost), core, last


def _descended(x: Array, mix: Array, core: Array, wanted: Array) -> Array:
    """Twelve steps of conjugate gradients (Hestenes and Stiefel, 1952) on the mix, in least squares."""

    def made(of: Array) -> Array:
        found: Array = np.einsum("nms,mk,pks->np", x, of, core, optimize=True)
        return found

    def back(errors: Array) -> Array:
        found: Array = np.einsum("nms,np,pks->mk", x, errors, core, optimize=True)
        return found

    residual = back(wanted - made(mix))
    direction, square = residual, np.square(residual).sum()
    for _ in range(12):
        curvature = np.square(made(direction)).sum()
        if not curvature > 0:
            break
        mix = mix + square / curvature * direction
        residual = residual - square / curvature * back(made(direction))
        before, square = square, np.square(residual).sum()
        direction = residual + square / before * direction
    return mix
