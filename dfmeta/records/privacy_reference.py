"""What a reference of other units says of a site: the population that membership scores are measured against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dfmeta._catalog import KINDS

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
# Above this many features the covariance is taken as diagonal.
WHITENED_LIMIT = 1024
# Of the mean variance of a site: what a feature that never varied is given at least.
FLOOR = 1e-3


class ReferenceMoments:
    """Means of units by group, their common covariance, and the variance of samples by group; float64.

    Args:
        about: ``[G, d]`` numbers near the means, so that squares of deviations lose nothing: the published means.
    """

    def __init__(self, about: Array) -> None:
        groups, features = about.shape
        self._about = about
        self._count = np.zeros(groups)
        self._sum, self._squares = np.zeros((groups, features)), np.zeros((groups, features))
        self._full = features <= WHITENED_LIMIT
        self._products = np.zeros((features, features) if self._full else features)
        self._whitener: Array | None = None
        self._deviation: Array | None = None

    def add(self, samples: Array, group: Rows) -> None:
        """Take in units: ``[n, P, d]`` samples and ``[n]`` groups."""
        centred = samples - self._about[group][:, None]
        units = centred.mean(1)
        np.add.at(self._count, group, 1)
        np.add.at(self._sum, group, units)
        np.add.at(self._squares, group, (centred**2).mean(1))
        self._products += units.T @ units if self._full else (units**2).sum(0)
        self._whitener = self._deviation = None

    @property
    def units(self) -> Array:
        """``[G]`` how many units each group's mean is of, at least 1."""
        return np.maximum(self._count, 1)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """``[G]`` whether there were any."""
        return self._count > 0

    @property
    def mean(self) -> Array:
        """``[G, d]``; the published mean where no unit of the group was seen."""
        return self._about + self._sum / self.units[:, None]

    @property
    def variance(self) -> Array:
        """``[G, d]`` of the samples, positions included."""
        found: Array = np.maximum(self._squares / self.units[:, None] - (self._sum / self.units[:, None]) ** 2, 0)
        return found

    @property
    def deviation(self) -> Array:
        """``[d]`` of the units' means within their groups, above 0."""
        if self._deviation is None:
            covariance = self._within()
            variance = np.diag(covariance) if self._full else covariance
            self._deviation = np.sqrt(variance + self._least(variance))
        return self._deviation

    def whitened(self, vectors: Array) -> Array:
        """``[n, d]`` vectors in coordinates in which units have covariance 1 within their groups.

        The covariance is drawn towards its diagonal by d / (d + n), since n units say little of d directions.
        """
        if not self._full:
            return vectors / self.deviation
        if self._whitener is None:
            covariance = self._within()
            variance = np.diag(covariance)
            features, count = len(variance), self._count.sum()
            trust = count / (features + count)
            shrunk = trust * covariance + np.diag((1 - trust) * variance + self._least(variance))
            values, directions = np.linalg.eigh(shrunk)
            self._whitener = directions / np.sqrt(np.maximum(values, self._least(variance)))
        product: Array = vectors @ self._whitener
        return product

    def _within(self) -> Array:
        between = self._sum / np.sqrt(self.units)[:, None]
        products = between.T @ between if self._full else (between**2).sum(0)
        found: Array = (self._products - products) / max(self._count.sum() - self.observed.sum(), 1)
        return found

    def _least(self, variance: Array) -> float:
        return float(FLOOR * variance.mean() + np.finfo(np.float64).tiny)


class ReferenceBins:
    """The reference's own histogram, in the published bins.

    Args:
        bins: ``[B]`` the published bins, by rising value.
        counts: ``[G, B]`` the published numbers.
    """

    def __init__(self, bins: Rows, counts: Array) -> None:
        self._spec = KINDS.load("histogram", "spec")
        self._ranks = self._spec.rank_of(bins)
        self._published = counts
        self._seen = np.zeros_like(counts)

    def add(self, samples: Array, group: Rows) -> None:
        """Take in units: ``[n, P, d]`` samples and ``[n]`` groups."""
        np.add.at(self._seen, group, self._counted(samples))

    def scores(self, samples: Array, group: Rows) -> Array:
        """``[n]`` mean log-likelihood of each unit's values by the published bins, less that by the reference's."""
        ratio = _log_shares(self._published) - _log_shares(self._seen)
        counts = self._counted(samples)
        found: Array = (counts * ratio[group]).sum(1) / counts.sum(1)
        return found

    def _counted(self, samples: Array) -> Array:
        """``[n, B]`` a unit's values in each published bin; others go to the nearest published one."""
        rows = samples.reshape(len(samples), -1)
        ranks = self._spec.rank_of(self._spec.bin_of(rows))
        middles = (self._ranks[1:] + self._ranks[:-1]) / 2
        places = np.searchsorted(middles, ranks)
        return np.stack([np.bincount(row, minlength=len(self._ranks)) for row in places]).astype(np.float64)


def reference_for(tensors: Mapping[str, Array]) -> tuple[ReferenceMoments | None, ReferenceBins | None]:
    """What the record's tensors, with a leading group axis, can be compared with."""
    moments = ReferenceMoments(tensors["mean"]) if "mean" in tensors else None
    if "bins" not in tensors or not tensors["bins"].size:
        return moments, None
    return moments, ReferenceBins(tensors["bins"].reshape(-1).astype(np.int64), tensors["counts"])


def _log_shares(counts: Array) -> Array:
    """Half a value more in each bin, so that an empty one does not rule a unit out."""
    smoothed = counts + 0.5
    found: Array = np.log(smoothed / smoothed.sum(1, keepdims=True))
    return found
