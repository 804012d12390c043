"""Streaming mean and variance, group by group, in float64.

Batches and accumulators are combined with the pairwise update of Chan, Golub and LeVeque, "Algorithms for
computing the sample variance", The American Statistician 37(3), 1983, eq. 2.1: centred sums are added, never
raw squares, so a huge mean with a tiny variance loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.kinds._accumulators import restored
from dfmeta.kinds.moments.sums import CANCELLATION, added_by, combined, sums_about_mean, sums_about_zero

# So few numbers a unit that float64 costs nothing.
FEW = 256
_STATE = ("count", "mean", "squares")


class Reduced(NamedTuple):
    """What one batch adds: samples ``[G]`` int64, to the mean and to the centred squares ``[G, d]`` float64."""

    samples: Tensor
    mean: Tensor
    squares: Tensor


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

    takes_positions = True

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        del configuration
        self.features, self.groups = features, groups
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.mean = torch.zeros(groups, features, dtype=torch.float64)
        self.squares = torch.zeros(groups, features, dtype=torch.float64)

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch: :meth:`reduced`, and :meth:`take` what it gave."""
        self.take(self.reduced(samples, group))

    def reduced(self, samples: Tensor, group: Tensor) -> Reduced:
        """What one batch adds; nothing is taken in yet.

        float32 activations are reduced in float32 over one batch (positions in blocks of at most 4,096), then
        summed in float64; where that would lose more than about 1e-6 of a variance, or overflows, the features
        concerned are done again in float64. Activations of any other dtype are reduced in float64.

        Args:
            samples: ``[n, *positions, d]``, any float dtype, on the CPU: n units, each with any number of positions.
            group: ``[n]`` int64, the group of each unit.

        Raises:
            StepError: a NaN or an infinity.
        """
        samples, positions = samples.detach(), math.prod(samples.shape[1:-1])
        count = torch.bincount(group, minlength=self.groups) * positions
        if not len(group) or not positions:
            return Reduced(count, torch.zeros_like(self.mean), torch.zeros_like(self.squares))
        if samples.dtype != torch.float32 or math.prod(samples.shape[1:]) <= FEW:
            samples = samples.to(torch.float64)
        if samples.dim() > 2:
            samples = samples.flatten(1, -2).mT
        maps = samples.dim() == 3 and samples.dtype == torch.float32
        sums = sums_about_zero(samples, group, self.groups) if maps else sums_about_mean(samples, group, count)
        seen = self.count, self.mean
        mean, squares, lost = added_by(sums, count, seen, CANCELLATION if maps else math.inf)
        found = Reduced(count, mean, squares)
        return self._repaired(found, lost, samples, group) if bool(lost.any()) else found

    def take(self, reduced: Reduced) -> None:
        """Take in what :meth:`reduced` gave, before any other batch is reduced."""
        self.count = self.count + reduced.samples
        self.mean = self.mean + reduced.mean
        self.squares = self.squares + reduced.squares

    def merge(self, other: Accumulator) -> None:
        """Take in everything that ``other`` saw. The same as one pass over both, to rounding."""
        self.take(self._combined(other.count, other.mean, other.squares))

    def pooled(self) -> Accumulator:
        """One group that holds the sum of all groups."""
        total = Accumulator(self.features, 1, {})
        for row in range(self.groups):
            part = slice(row, row + 1)
            total.take(total._combined(self.count[part], self.mean[part], self.squares[part]))
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
            # Rounding may leave less than nothing, or minus nothing.
            "var": (self.squares.clamp(min=0) / divisor).to(torch.float32).add(0.0).numpy(),
        }

    def _combined(self, count: Tensor, mean: Tensor, squares: Tensor) -> Reduced:
        """What other samples add, by their own mean and centred squares."""
        return Reduced(count, *combined(count, mean, squares, (self.count, self.mean)))

    def _repaired(self, added: Reduced, lost: Tensor, samples: Tensor, group: Tensor) -> Reduced:
        """Do features ``lost`` ``[d]`` again in float64: their sums left too little, or overflowed."""
        columns = lost.nonzero().flatten()
        samples = samples.index_select(1, columns).to(torch.float64)
        again = sums_about_mean(samples, group, added.samples)
        if not bool(torch.isfinite(again[2]).all()):
            _require_finite(samples)
        seen = self.count, self.mean[:, columns]
        added.mean[:, columns], added.squares[:, columns], _ = added_by(again, added.samples, seen)
        return added


def _require_finite(samples: Tensor) -> None:
    if not bool(torch.isfinite(samples).all()):
        raise StepError("moments", "NaN or infinity", "finite values", "Look for the input that overflows this site.")
