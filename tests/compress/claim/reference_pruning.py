"""Pruning with the data at hand, as the papers write it.

Channels: least squares on the samples (He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017),
with a ridge written as one more sample for each feature; which of them goes next by trying each. Zeros: SparseGPT
(Frantar and Alistarh, 2023), algorithm 1. Samples are taken about their mean, because the bias takes that up.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def with_ridge(samples: Array, share: float) -> Array:
    """One more sample for each feature, of that feature alone, of this share of their mean energy."""
    mean = np.square(samples).sum(0).mean()
    return np.vstack([samples, np.sqrt(share * mean) * np.eye(samples.shape[1])])


def least_squares(weight: Array, samples: Array, kept: Indices) -> tuple[Array, float]:
    """The weight on some features that comes closest to the whole one on all, and its squared error."""
    wanted = samples @ weight.T
    found = np.linalg.lstsq(samples[:, kept], wanted, rcond=None)[0]
    return found.T, float(np.square(samples[:, kept] @ found - wanted).sum())


def by_trying(weight: Array, samples: Array, channels: int, count: int, ridge: float = 1e-3) -> Indices:
    """The channels that are left when, ``count`` times, the one goes whose loss the others make up for best."""
    seen, block = with_ridge(samples, ridge), weight.shape[1] // channels
    # As few rows as there are features say the same.
    seen = np.linalg.qr(seen, mode="r")
    left = list(range(channels))
    for _ in range(count):
        errors = [least_squares(weight, seen, features([c for c in left if c != gone], block))[1] for gone in left]
        left.pop(int(np.argmin(errors)))
    return np.array(left)


def by_surgeon(weight: Array, samples: Array, channels: int, count: int, ridge: float = 1e-3) -> Indices:
    """The same by the surgeon's formula, everything anew after each channel."""
    return np.setdiff1d(np.arange(channels), surgeon(weight, samples, channels, count, ridge)[0])


def surgeon(
    weight: Array, samples: Array, channels: int, count: int, ridge: float = 1e-3
) -> tuple[list[int], list[float]]:
    """Channels in the order in which they go, and by how much the error rises each time (Kurtic et al., "ZipLM", 2023,
    eq. 3)."""
    seen, block = with_ridge(samples, ridge), weight.shape[1] // channels
    hessian, left = seen.T @ seen, list(range(channels))
    gone: list[int] = []
    rises: list[float] = []
    for _ in range(count):
        kept = features(left, block)
        inverse = np.linalg.inv(hessian[np.ix_(kept, kept)])
        fitted = (weight @ hessian[:, kept]) @ inverse
        costs = []
        for place in range(len(left)):
            part = slice(place * block, (place + 1) * block)
            costs.append(np.trace(fitted[:, part] @ np.linalg.inv(inverse[part, part]) @ fitted[:, part].T))
        rises.append(float(min(costs)))
        gone.append(left.pop(int(np.argmin(costs))))
    return gone, rises


def by_work(readers: list[tuple[Array, Array, int]], macs: list[float], fraction: float) -> list[Indices]:
    """The channels that each layer of a chain keeps when that channel goes next which costs least for what it saves.

    Args:
        readers: of each layer but the last, the weight and samples of the layer that reads it, and its channels.
        macs: multiply-accumulates of each layer.
        fraction: of all of them that stays at most.
    """
    paths = [surgeon(weight, samples, size, size - 1) for weight, samples, size in readers]
    energies = [np.square(samples @ weight.T).sum() for weight, samples, _ in readers]
    gone = [0] * len(readers)

    def work(gone: list[int]) -> float:
        shares = [1.0, *((size - less) / size for (_, _, size), less in zip(readers, gone, strict=True)), 1.0]
        return sum(each * before * after for each, (before, after) in zip(macs, pairwise(shares), strict=True))

    while work(gone) > fraction * sum(macs):
        worth = {}
        for place, (_, costs) in enumerate(paths):
            if gone[place] < len(costs):
                further = [count + (other == place) for other, count in enumerate(gone)]
                worth[place] = costs[gone[place]] / energies[place] / (work(gone) - work(further))
        gone[min(worth, key=worth.__getitem__)] += 1
    return [
        np.setdiff1d(np.arange(size), order[:count])
        for (_, _, size), (order, _), count in zip(readers, paths, gone, strict=True)
    ]


def by_energy(weight: Array, samples: Array, channels: int, count: int) -> Indices:
    """The channels that are left when those go that make the least of the output, each alone."""
    block = weight.shape[1] // channels
    parts = [features([channel], block) for channel in range(channels)]
    alone = [np.square(samples[:, part] @ weight[:, part].T).sum() for part in parts]
    return np.sort(np.argsort(alone, kind="stable")[count:])


def features(channels: list[int] | Indices, block: int) -> Indices:
    """Columns of these channels."""
    return (np.asarray(channels, np.int64)[:, None] * block + np.arange(block)).reshape(-1)


def repaired(weight: Array, samples: Array, kept: Indices, ridge: float = 1e-3) -> Array:
    """``[o, len(kept)]`` least squares on the samples, its outputs given the variance that they had."""
    found = least_squares(weight, with_ridge(samples, ridge), kept)[0]
    return with_variance(weight, found, samples, kept)


def with_variance(weight: Array, replaced: Array, samples: Array, kept: Indices | slice) -> Array:
    """Each row times what gives its output the spread it had (Jordan et al., "REPAIR", 2023)."""
    before, after = np.square(samples @ weight.T).sum(0), np.square(samples[:, kept] @ replaced.T).sum(0)
    usable = (before > 0) & (after > 0)
    gain = np.sqrt(np.divide(before, after, out=np.ones_like(before), where=usable))
    found: Array = replaced * gain[:, None]
    return found


def sparse(weight: Array, samples: Array, pattern: float | tuple[int, int], taps: int = 1) -> Array:
    """SparseGPT: in blocks of 128 columns a fraction of zeros, or n of m neighbours left. Columns by tap, channel."""
    order = np.arange(weight.shape[1]).reshape(-1, taps).T.reshape(-1)
    hessian = (samples.T @ samples)[np.ix_(order, order)]
    hessian = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(len(order))
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left, gone = weight[:, order].copy(), np.zeros(weight.shape, bool)
    for place in range(len(order)):
        score = np.square(left / np.diagonal(factor))
        if isinstance(pattern, float) and place % 128 == 0:
            block = score[:, place : place + 128]
            smallest = np.argsort(block, axis=None)[: round(pattern * block.size)]
            gone[np.unravel_index(smallest, block.shape)[0], place + np.unravel_index(smallest, block.shape)[1]] = True
        elif not isinstance(pattern, float) and place % pattern[1] == 0:
            ranked = np.argsort(score[:, place : place + pattern[1]], axis=1)
            np.put_along_axis(gone[:, place : place + pattern[1]], ranked[:, : pattern[1] - pattern[0]], True, axis=1)
        error = np.where(gone[:, place], left[:, place], 0) / factor[place, place]
        left[:, place + 1 :] -= np.outer(error, factor[place, place + 1 :])
        left[gone[:, place], place] = 0
    found = np.empty_like(left)
    found[:, order] = left
    return with_variance(weight, found, samples, slice(None))
