"""The Gaussian of each class that a `spectrum` record describes: drawn from, and coupled to another site's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta.records import Statistic

# A direction with less than this share of the greatest variance counts as one that does not vary.
LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class ClassGaussians:
    """For each of G classes N(mean, V^T diag(values) V + rest (1 - V^T V)), V the recorded eigenvectors.

    What the record left out of the trace is shared out evenly over the directions that it left out: the recorded
    directions keep their variances, and the trace is the recorded one.

    Attributes:
        mean: ``[G, d]``.
        values: ``[G, k]`` eigenvalues, 0 beyond what a class keeps.
        vectors: ``[G, k, d]`` eigenvectors, one a row; zero where the eigenvalue was not kept.
        rest: ``[G]`` variance along every other direction.
        count: ``[G]`` samples behind each class; 0 for a class that was withheld.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor
    rest: Tensor
    count: Tensor

    @classmethod
    def of(cls, spectrum: Statistic) -> ClassGaussians:
        """Those of a record by class."""
        parts = spectrum.tensors
        kept = parts["eigenvectors"].any(-1).sum(-1)
        left = parts["mean"].shape[1] - kept
        rest = parts["residual_trace"] / left.clamp(min=1) * (left > 0)
        return cls(parts["mean"], parts["eigenvalues"], parts["eigenvectors"], rest, parts["count"])

    @property
    def features(self) -> int:
        """How many features: d."""
        return self.mean.shape[1]

    @property
    def rank(self) -> int:
        """How many directions are kept: k."""
        return self.values.shape[1]

    def variance(self) -> Tensor:
        """``[G]`` mean over the features: trace / d."""
        left = self.features - self.vectors.any(-1).sum(-1)
        return (self.values.sum(1) + self.rest * left) / self.features

    def colour(self, white: Tensor, labels: Tensor, residual: float = 1.0) -> Tensor:
        """``[n, d]`` standard normal to ``[n, d]`` samples of each label's Gaussian: ``mean + white S^(1/2)``.

        Args:
            white: ``[n, d]``.
            labels: ``[n]`` int64.
            residual: the variance along directions that were not recorded is multiplied by this.
        """
        found = torch.empty_like(white)
        for label, rows in _by_class(labels):
            roots = self.values[label].sqrt(), (residual * self.rest[label]).sqrt()
            found[rows] = self.mean[label] + self._scaled(white[rows], label, *roots)
        return found

    def along(self, coefficients: Tensor, labels: Tensor) -> Tensor:
        """``[n, k]`` standard normal to ``[n, d]`` samples that vary in the recorded directions alone."""
        found = coefficients.new_empty(len(labels), self.features)
        for label, rows in _by_class(labels):
            found[rows] = self.mean[label] + (coefficients[rows] * self.values[label].sqrt()) @ self.vectors[label]
        return found

    def whitened(self, rows: Tensor, label: int) -> Tensor:
        """``[m, d]`` rows times ``S^(-1/2)``; 0 along directions that do not vary."""
        values, rest = self.values[label].to(rows.dtype), self.rest[label].to(rows.dtype)
        floor = LEAST_SHARE * torch.maximum(values.max(), rest)
        inside, outside = (torch.where(part > floor, part.rsqrt(), 0) for part in (values, rest))
        return self._scaled(rows, label, inside, outside)

    def _scaled(self, rows: Tensor, label: int, inside: Tensor, outside: Tensor) -> Tensor:
        """``[m, d]`` rows times ``V^T diag(inside) V + outside (1 - V^T V)``."""
        vectors = self.vectors[label].to(rows.dtype)
        along = rows @ vectors.T
        return outside * rows + (along * (inside - outside)) @ vectors


def _by_class(labels: Tensor) -> list[tuple[int, Tensor]]:
    """Each class present, and where it is."""
    return [(label, labels == label) for label in torch.unique(labels).tolist()]


@dataclass(frozen=True, slots=True)
class Coupling:
    """How two sites vary together, class by class: canonical directions of both, and their correlations.

    With ``C = S1^(-1/2) X S2^(-1/2) = P^T diag(c) Q`` the recorded cross-covariance ``X`` in units of both sites'
    deviations, ``white2 = noise + ((c (white1 P^T) + (1 - c^2)^(1/2) (noise Q^T)) - noise Q^T) Q`` is standard normal
    beside a standard normal ``white1``, and their covariance is ``C``. So both sites keep their own Gaussians
    exactly, and vary together as recorded: Hotelling, "Relations between two sets of variates", Biometrika 28, 1936.
    A correlation above 1, which truncated or noised records can imply, is taken for 1.

    Attributes:
        before: ``[G, k, d1]`` P, orthonormal rows.
        after: ``[G, k, d2]`` Q, orthonormal rows.
        correlations: ``[G, k]`` c, from 0 to 1.
    """

    before: Tensor
    after: Tensor
    correlations: Tensor

    @classmethod
    def of(cls, cross: Statistic, before: ClassGaussians, after: ClassGaussians) -> Coupling:
        """That of a `cross-spectrum` record by class and the two sites' Gaussians."""
        parts = {name: cross.tensors[name].double() for name in ("left", "right", "singular_values")}
        found = []
        for label in range(len(parts["left"])):
            left = before.whitened(parts["left"][label], label)
            right = after.whitened(parts["right"][label], label)
            found.append(_canonical(left, parts["singular_values"][label], right))
        stacked = [torch.stack(part).to(cross.tensors["left"].dtype) for part in zip(*found, strict=True)]
        return cls(stacked[0], stacked[2], stacked[1])

    def couple(self, white: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        """``[n, d1]`` standard normal of the site before and ``[n, d2]`` of its own, to that of the site after."""
        found = noise.clone()
        for label, rows in _by_class(labels):
            correlation, after = self.correlations[label], self.after[label]
            own = noise[rows] @ after.T
            shared = white[rows] @ self.before[label].T
            found[rows] += (correlation * shared + (1 - correlation.square()).sqrt() * own - own) @ after
        return found


def _canonical(left: Tensor, values: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``left^T diag(values) right`` as ``P^T diag(c) Q``: ``P [k, d1]``, ``c [k]``, ``Q [k, d2]``, rows orthonormal."""
    columns, upper = torch.linalg.qr(left.T)
    others, lower = torch.linalg.qr(right.T)
    inner, found, outer = torch.linalg.svd((upper * values) @ lower.T)
    return (columns @ inner).T, found.clamp(max=1), outer @ others.T
