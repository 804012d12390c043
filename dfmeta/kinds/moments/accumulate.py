"""Streaming mean and variance, group by group, in float64.

Batches and accumulators are combined with the pairwise update of Chan, Golub and LeVeque, "Algorithms for
computing the sample variance", The American Statistician 37(3), 1983, eq. 2.1: centred sums are added, never
raw squares, so a huge mean with a tiny variance loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds._accumulators import restored

_STATE = ("count", "mean", "squares")


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an :class:`Accumulator` of these sizes holds for as long as it lives, in bytes."""
    del configuration
    return groups * 8 * (1 + 2 * features)


class Accumulator:
    """Count, mean and centred sum of squares of each feature for each of ``groups`` groups.

    Args:
        features: d, the width of a sample.
        groups: G, the number of groups; 1 for a record over all units.
        configuration: nothing of it matters here.
    """

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        del configuration
        self.features, self.groups = features, groups
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.mean = torch.zeros(groups, features, dtype=torch.float64)
        self.squares = torch.zeros(groups, features, dtype=torch.float64)

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch.

        Args:
            samples: ``[n, d]``, any float dtype; accumulated in float64.
            group: ``[n]`` int64, the group of each sample.
        """
        samples = samples.to(torch.float64)
        count = torch.bincount(group, minlength=self.groups)
        divisor = count.clamp(min=1).to(torch.float64)[:, None]
        mean = torch.zeros_like(self.mean).index_add_(0, group, samples) / divisor
        centred = samples - mean[group]
        squares = torch.zeros_like(self.squares).index_add_(0, group, centred * centred)
        self._combine(count, mean, squares)

    def merge(self, other: Accumulator) -> None:
        """Take in everything that ``other`` saw. The same as one pass over both, to rounding."""
        self._combine(other.count, other.mean, other.squares)

    def pooled(self) -> Accumulator:
        """One group that holds the sum of all groups."""
        total = Accumulator(self.features, 1, {})
        for row in range(self.groups):
            part = slice(row, row + 1)
            total._combine(self.count[part], self.mean[part], self.squares[part])
        return total

    def without(self, groups: Sequence[int]) -> Accumulator:
        """The same to read out, with the given groups as if they had not been observed. Not to be updated."""
        left = Accumulator(self.features, self.groups, {})
        left.count, left.mean, left.squares = (s.clone() for s in (self.count, self.mean, self.squares))
        for state in (left.count, left.mean, left.squares):
            state[list(groups)] = 0
        return left

    def state(self) -> dict[str, np.ndarray]:
        """All of it: ``count`` int64 ``[G]``, ``mean`` and ``squares`` float64 ``[G, d]``."""
        return {name: getattr(self, name).numpy().copy() for name in _STATE}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down; ValueError if it does not fit."""
        for name, tensor in restored(self, _STATE, state).items():
            setattr(self, name, tensor)

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record: ``count`` int64 ``[G]``, ``mean`` and ``var`` float32 ``[G, d]``."""
        del units, min_units
        divisor = self.count.clamp(min=1).to(torch.float64)[:, None]
        return {
            "count": self.count.numpy(),
            "mean": self.mean.to(torch.float32).numpy(),
            "var": (self.squares / divisor).to(torch.float32).numpy(),
        }

    def _combine(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        total = (self.count + count).clamp(min=1).to(torch.float64)[:, None]
        share = count.to(torch.float64)[:, None] / total
        delta = mean - self.mean
        self.squares = self.squares + squares + delta * delta * self.count.to(torch.float64)[:, None] * share
        self.mean = self.mean + delta * share
        self.count = self.count + count
