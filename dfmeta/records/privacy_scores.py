"""Membership scores: from a published record, a unit, and other units of the same population as a reference.

A score is higher the more a unit looks as if it had gone into the record. Which scores a record allows depends on what
it holds, whatever its kind:

* ``mean``: ``homer``, the distance to the reference's mean less the distance to the published one (N. Homer et al.,
  "Resolving individuals contributing trace amounts of DNA to highly complex mixtures", PLoS Genetics 4(8), 2008), and
  ``likelihood-ratio``, the Gaussian log-likelihood ratio of "this unit is one of the n behind the mean" (S.
  Sankararaman et al., "Genomic privacy and limits of individual detection in a pool", Nature Genetics 41(9), 2009);
* ``var``: ``density``, the Gaussian log-density of the unit by the published numbers less that by the reference's;
* ``eigenvalues``: ``subspace``, minus the Mahalanobis length inside the published subspace and the residual energy
  outside of it;
* second moments: ``leverage``, minus ``x^T M^-1 x``: what went into M is seldom far out by its measure;
* ``counts`` in ``bins``: ``bins``, the log-likelihood of the unit's bins, published less reference.

Where a unit is many samples, its mean over positions stands for it in the first two, and the mean of the score over
positions in the others. All scores are brought to mean 0 on the reference, group by group, and to deviation 1, so that
classes can be judged together and scores added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta.records.privacy_reference import FLOOR, Array, ReferenceMoments, Rows, reference_for
from dfmeta.records.published import Statistic
from dfmeta.records.samples import feature_vectors

Score = Callable[[Array, Rows], Array]
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class SecondMoments:
    """What a second-moment record holds, whole, and how the samples of its site are cut out.

    Attributes:
        matrices: ``[G, g, d, d]`` for each group of units and each convolution group.
        window: the convolution's, as :mod:`dfmeta.kinds.second_moment.geometry` has it; None for a matrix product.
    """

    matrices: Array
    window: Any

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], features: int, configuration: Mapping[str, Any]) -> SecondMoments:
        """From a record's tensors as they are stored.

        Args:
            arrays: with or without a leading axis of groups of units.
            features: the record's ``feature_count``.
            configuration: of the record.

        Raises:
            ValueError: a configuration that cannot be read, or matrices too large for memory.
        """
        matrices = KINDS.load("second-moment", "reading").matrix(arrays, features, configuration)
        window = KINDS.load("second-moment", "geometry").window_of(features, configuration)
        return cls(matrices if matrices.ndim == 4 else matrices[None], window)


class Scorer:
    """The scores of one record.

    Give it the reference twice, to :meth:`learn` and then to :meth:`calibrate`; then ask for others' scores.

    Args:
        statistic: the record.
        second: what it holds, if it is one of second moments.

    Attributes:
        statistic: as given.
        names: the scores that this record allows; none for a record that no score reads.
    """

    def __init__(self, statistic: Statistic, second: SecondMoments | None = None) -> None:
        self.statistic, self._second = statistic, second
        self._tensors = {name: tensor.double().numpy() for name, tensor in statistic.tensors.items()}
        if "mean" in self._tensors:
            # Those of several convolution groups side by side.
            self._tensors["mean"] = self._tensors["mean"].reshape(len(self._tensors["mean"]), -1)
        self._moments, self._bins = reference_for(self._tensors)
        self._scores = self._known()
        self.names = tuple(self._scores)
        self._seen: list[tuple[Rows, dict[str, Array]]] = []
        self._scale: dict[str, tuple[Array, float]] = {}

    def learn(self, value: Tensor, labels: Rows) -> None:
        """Take in reference units: ``[n, ...]`` values of the site, ``[n]`` int64 classes."""
        samples, group, _ = self._units(value, labels)
        if not len(group):
            return
        for reference in (self._moments, self._bins):
            if reference is not None:
                reference.add(samples, group)

    def calibrate(self, value: Tensor, labels: Rows) -> None:
        """Take in the same units again, to know where their scores lie and how far they spread."""
        samples, group, _ = self._units(value, labels)
        if not len(group):
            return
        self._seen.append((group, {name: score(samples, group) for name, score in self._scores.items()}))

    def scores(self, value: Tensor, labels: Rows) -> dict[str, Array]:
        """The score of each unit by name, ``[n]``; NaN where its class was withheld, or is not in the reference."""
        samples, group, usable = self._units(value, labels)
        found = {}
        for name, score in self._scores.items():
            centre, deviation = self._spread(name)
            found[name] = np.full(len(usable), np.nan)
            if not len(group):
                continue
            found[name][usable] = (score(samples, group) - centre[group]) / deviation
        return found

    def _spread(self, name: str) -> tuple[Array, float]:
        if name not in self._scale:
            group = np.concatenate([rows for rows, _ in self._seen])
            scores = np.concatenate([columns[name] for _, columns in self._seen])
            centre = np.full(len(self._tensors["count"]), np.nan)
            for row in np.unique(group):
                centre[row] = scores[group == row].mean()
            self._scale[name] = (centre, max(float((scores - centre[group]).std()), _TINY))
        return self._scale[name]

    def _units(self, value: Tensor, labels: Rows) -> tuple[Array, Rows, Any]:
        """``[u, P, d]`` samples and ``[u]`` groups of the units whose group was published, and ``[n]`` which."""
        group = labels if self.statistic.by_class else np.zeros_like(labels)
        usable = self._tensors["count"][group] > 0
        return self._samples(value[usable]), group[usable], usable

    def _samples(self, value: Tensor) -> Array:
        """``[n, P, d]``; of a convolution's patches, ``[n, P, g * d]``."""
        found: Array
        if self._second is not None and self._second.window is not None:
            products = KINDS.load("second-moment", "products")
            patches = products.patches(value.double(), self._second.window)
            positions, width = patches.shape[1] // max(len(value), 1), patches.shape[0] * patches.shape[2]
            found = patches.movedim(0, 1).reshape(len(value), positions, width).numpy()
            return found
        axis, features = self.statistic.feature_axis, self.statistic.features
        samples, _ = feature_vectors(value, value.new_zeros(len(value)), features, axis)
        found = samples.double().numpy().reshape(len(value), len(samples) // max(len(value), 1), samples.shape[-1])
        return found

    def _known(self) -> dict[str, Score]:
        tensors, moments, bins = self._tensors, self._moments, self._bins
        found: dict[str, Score] = {}
        if moments is not None:
            found["homer"] = lambda samples, group: _homer(tensors, moments, samples, group)
            found["likelihood-ratio"] = lambda samples, group: _likelihood_ratio(tensors, moments, samples, group)
            if "var" in tensors:
                found["density"] = lambda samples, group: _density(tensors, moments, samples, group)
        if "eigenvalues" in tensors:
            found["subspace"] = lambda samples, group: _subspace(tensors, samples, group)
        if self._second is not None:
            whiteners = _whiteners(self._second.matrices)
            found["leverage"] = lambda samples, group: _leverage(whiteners, samples, group)
        if bins is not None:
            found["bins"] = bins.scores
        return found


def _homer(tensors: Mapping[str, Array], reference: ReferenceMoments, samples: Array, group: Rows) -> Array:
    units = samples.mean(1)
    to_reference = np.abs(units - reference.mean[group])
    to_published = np.abs(units - tensors["mean"][group])
    found: Array = ((to_reference - to_published) / reference.deviation).sum(1)
    return found


def _likelihood_ratio(tensors: Mapping[str, Array], reference: ReferenceMoments, samples: Array, group: Rows) -> Array:
    """Both means are known to within their own noise: 1/n and 1/r of the units' covariance C.

    Without the unit, published less reference mean has mean 0 and covariance ``(1/n + 1/r) C``; with it, mean
    ``(x - mu) / n`` and covariance ``((n - 1) / n^2 + 1/r) C``.
    """
    behind = (tensors["count"] / samples.shape[1])[group]
    reference_units = reference.units[group]
    without = 1 / behind + 1 / reference_units
    within = np.maximum(behind - 1, 0) / behind**2 + 1 / reference_units
    gap = reference.whitened(tensors["mean"] - reference.mean)[group]
    pull = reference.whitened(samples.mean(1) - reference.mean[group]) / behind[:, None]
    ratio = (gap**2).sum(1) / without - ((gap - pull) ** 2).sum(1) / within
    found: Array = (ratio + gap.shape[1] * np.log(without / within)) / 2
    return found


def _density(tensors: Mapping[str, Array], reference: ReferenceMoments, samples: Array, group: Rows) -> Array:
    floor = FLOOR * float(reference.variance.mean()) + _TINY
    published = _log_density(samples, tensors["mean"][group], tensors["var"][group] + floor)
    return published - _log_density(samples, reference.mean[group], reference.variance[group] + floor)


def _log_density(samples: Array, mean: Array, variance: Array) -> Array:
    """Mean over positions of the Gaussian log-density, less a constant; ``[n, P, d]``, ``[n, d]`` and ``[n, d]``."""
    energy = (samples - mean[:, None]) ** 2 / variance[:, None] + np.log(variance)[:, None]
    found: Array = -energy.sum(2).mean(1) / 2
    return found


def _subspace(tensors: Mapping[str, Array], samples: Array, group: Rows) -> Array:
    """Directions of the subspace that say less than the residual does are given the residual's variance."""
    values, vectors, residual = (tensors[name] for name in ("eigenvalues", "eigenvectors", "residual_trace"))
    features = samples.shape[2]
    left = np.maximum(features - (values > 0).sum(1), 1)
    least = FLOOR * (values.sum(1) + residual) / features + _TINY
    outside = np.maximum(residual / left, least)
    found = np.empty(len(samples))
    for row in np.unique(group):
        centred = samples[group == row] - tensors["mean"][row]
        inside = (centred @ vectors[row].T) ** 2
        energy = (inside / np.maximum(values[row], outside[row])).sum(2)
        energy += np.maximum((centred**2).sum(2) - inside.sum(2), 0) / outside[row]
        found[group == row] = -energy.mean(1) / 2
    return found


def _whiteners(matrices: Array) -> Array:
    """``[G, g, d, d]`` W with ``W^T M W = 1``; directions that M hardly has count as a thousandth of its mean."""
    values, vectors = np.linalg.eigh(matrices)
    least = FLOOR * values.mean(-1, keepdims=True) + _TINY
    found: Array = vectors / np.sqrt(np.maximum(values, least))[..., None, :]
    return found


def _leverage(whiteners: Array, samples: Array, group: Rows) -> Array:
    units, positions = samples.shape[:2]
    parts = samples.reshape(units, positions, whiteners.shape[1], -1)
    found = np.empty(units)
    for row in np.unique(group):
        white = np.einsum("npgd,gde->npge", parts[group == row], whiteners[row], optimize=True)
        found[group == row] = -(white**2).sum((2, 3)).mean(1)
    return found
