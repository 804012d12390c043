"""Streaming covariance, group by group, exact and in float64; eigenpairs when it is done.

The pairwise update is that of :mod:`dfmeta.kinds.moments.accumulate` with the outer product in place of the
square. Its rank-one correction is folded into the product of the batch as one more row, so that a batch
costs one matrix product for each group that it holds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds._accumulators import restored
from dfmeta.numerics import leading_eigenpairs

_STATE = ("count", "mean", "comoment")
UNITS_PER_VECTOR = 10


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an :class:`Accumulator` of these sizes holds for as long as it lives, in bytes."""
    del configuration
    return groups * 8 * (1 + features + features * features)


class Accumulator:
    """Count, mean and centred co-moment of the features for each of ``groups`` groups.

    Args:
        features: d, the width of a sample.
        groups: G, the number of groups; 1 for a record over all units.
        configuration: ``rank`` is k, how many eigenpairs the record keeps.
    """

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        self.features, self.groups, self.configuration = features, groups, dict(configuration)
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.mean = torch.zeros(groups, features, dtype=torch.float64)
        self.comoment = torch.zeros(groups, features, features, dtype=torch.float64)

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch.

        Args:
            samples: ``[n, d]``, any float dtype; accumulated in float64.
            group: ``[n]`` int64, the group of each sample.
        """
        samples = samples.to(torch.float64)
        for row in torch.unique(group).tolist():
            part = samples[group == row]
            mean = part.mean(0)
            correction = self._meet(row, len(part), mean)
            rows = torch.cat([part - mean, correction[None]])
            self.comoment[row].addmm_(rows.T, rows)

    def merge(self, other: Accumulator) -> None:
        """Take in everything that ``other`` saw. The same as one pass over both, to rounding."""
        for row in range(self.groups):
            self._absorb(row, other, row)

    def pooled(self) -> Accumulator:
        """One group that holds the sum of all groups."""
        total = Accumulator(self.features, 1, self.configuration)
        for row in range(self.groups):
            total._absorb(0, self, row)
        return total

    def without(self, groups: Sequence[int]) -> Accumulator:
        """The same to read out, with the given groups as if they had not been observed. Not to be updated.

        The co-moments, which are large, are shared and not copied: those of a group whose count is 0 are never
        looked at.
        """
        left = copy.copy(self)
        left.count, left.mean = self.count.clone(), self.mean.clone()
        left.count[list(groups)] = 0
        left.mean[list(groups)] = 0
        return left

    def state(self) -> dict[str, np.ndarray]:
        """All of it: ``count`` int64 ``[G]``, ``mean`` float64 ``[G, d]``, ``comoment`` float64 ``[G, d, d]``."""
        return {name: getattr(self, name).numpy().copy() for name in _STATE}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down; ValueError if it does not fit."""
        for name, tensor in restored(self, _STATE, state).items():
            setattr(self, name, tensor)

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record, float32 but for ``count``; shapes as in :func:`dfmeta.kinds.spectrum.spec.layout`.

        Args:
            units: ``[G]`` int64, how many units each group holds. A group keeps one pair for each ten of
                them at most, so that no published vector is one unit.
            min_units: least units behind a published extreme; this kind publishes none.
        """
        del min_units
        rank = int(self.configuration["rank"])
        values = np.zeros((self.groups, rank), np.float32)
        vectors = np.zeros((self.groups, rank, self.features), np.float32)
        residual = np.zeros(self.groups, np.float32)
        for row in range(self.groups):
            count = int(self.count[row])
            if not count:
                continue
            covariance = self.comoment[row] / count
            kept = min(rank, self.features, int(units[row]) // UNITS_PER_VECTOR)
            values[row, :kept], vectors[row, :kept] = leading_eigenpairs(covariance.numpy(), kept)
            residual[row] = max(float(covariance.trace()) - float(values[row].sum(dtype=np.float64)), 0.0)
        return {
            "count": self.count.numpy(),
            "mean": self.mean.to(torch.float32).numpy(),
            "eigenvalues": values,
            "eigenvectors": vectors,
            "residual_trace": residual,
        }

    def _absorb(self, row: int, other: Accumulator, other_row: int) -> None:
        count = int(other.count[other_row])
        if not count:
            return
        correction = self._meet(row, count, other.mean[other_row])
        self.comoment[row] += other.comoment[other_row]
        self.comoment[row].addr_(correction, correction)

    def _meet(self, row: int, count: int, mean: Tensor) -> Tensor:
        """Move count and mean on; return the ``[d]`` vector whose outer product corrects the co-moment."""
        before, total = int(self.count[row]), int(self.count[row]) + count
        delta = mean - self.mean[row]
        self.mean[row] += delta * (count / total)
        self.count[row] = total
        return delta * math.sqrt(before * count / total)
