"""Streaming mean and variance, group by group, in float64.

Batches and accumulators are combined with the pairwise update of Chan, Golub and LeVeque, "Algorithms for
computing the sample variance", The American Statistician 37(3), 1983, eq. 2.1: centred sums are added, never
raw squares, so a huge mean with a tiny variance loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds._accumulators import restored

# Positions that are summed in float32 before float64 takes over.
BLOCK_ROWS = 4096
# float32 keeps 2^-24 of a sum of squares; of a variance this many times smaller, about 1e-6 less.
CANCELLATION = 8.0
# So few numbers a unit that float64 costs nothing.
FEW = 256
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

    takes_positions = True

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        del configuration
        self.features, self.groups = features, groups
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.mean = torch.zeros(groups, features, dtype=torch.float64)
        self.squares = torch.zeros(groups, features, dtype=torch.float64)

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch.

        float32 activations are reduced in float32 over one batch (positions in blocks of at most 4,096), then
        summed in float64; where that would lose more than about 1e-6 of a variance, the features concerned are done
        again in float64, as activations of any other dtype always are.

        Args:
            samples: ``[n, *positions, d]``, any float dtype: n units, each with any number of positions.
            group: ``[n]`` int64, the group of each unit.
        """
        count = torch.bincount(group, minlength=self.groups)
        positions = math.prod(samples.shape[1:-1])
        if not len(group) or not positions:
            return
        if samples.dtype != torch.float32 or math.prod(samples.shape[1:]) <= FEW:
            samples = samples.to(torch.float64)
            mean, squares = _exact(samples.flatten(1, -2) if samples.dim() > 2 else samples[:, None], group, count)
        elif samples.dim() > 2:
            mean, squares = _over_positions(samples, group, count)
        else:
            mean, squares = _over_units(samples, group, count)
        self._combine(count * positions, mean, squares)

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


def _over_units(samples: Tensor, group: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Means and centred squares of ``[n, d]`` float32 samples: one matrix product each."""
    divisor = count.clamp(min=1).to(torch.float64)[:, None]
    mean = _sums(samples, group, len(count)).to(torch.float64) / divisor
    raw = _sums(samples.square(), group, len(count)).to(torch.float64)
    squares = raw - divisor * mean.square()
    return _repaired(samples[:, None], group, count, raw, mean, squares)


def _over_positions(samples: Tensor, group: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The same of ``[n, *positions, d]`` float32 samples: each unit's positions first."""
    samples = samples.flatten(1, -2)
    blocks = torch.split(samples, BLOCK_ROWS, dim=1)
    total = sum((block.sum(1).to(torch.float64) for block in blocks), start=torch.zeros(()))
    norms = (torch.linalg.vector_norm(block, dim=1).to(torch.float64).square() for block in blocks)
    raw = sum(norms, start=torch.zeros(()))
    positions = samples.shape[1]
    divisor = count.clamp(min=1).to(torch.float64)[:, None]
    of_unit = total / positions
    mean = _sums(of_unit, group, len(count)) / divisor
    within = raw - positions * of_unit.square()
    squares = _sums(within + positions * (of_unit - mean[group]).square(), group, len(count))
    return _repaired(samples, group, count, _sums(raw, group, len(count)), mean, squares)


def _repaired(
    samples: Tensor, group: Tensor, count: Tensor, raw: Tensor, mean: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor]:
    """Do those features again whose variance is small beside what it was the difference of, or that overflowed."""
    lost = (~torch.isfinite(raw) | (raw > CANCELLATION * squares)).any(0).nonzero().flatten()
    if len(lost):
        mean[:, lost], squares[:, lost] = _exact(samples[..., lost].to(torch.float64), group, count)
    return mean, squares


def _exact(samples: Tensor, group: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Means and centred squares of ``[n, p, d]`` float64 samples, in two passes."""
    divisor = (count * samples.shape[1]).clamp(min=1).to(torch.float64)[:, None]
    mean = _sums(samples.sum(1), group, len(count)) / divisor
    centred = samples - mean[group][:, None]
    return mean, _sums((centred * centred).sum(1), group, len(count))


def _sums(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    """``[G, d]`` sums of the rows ``[n, d]`` of each group: for many float32 numbers as a matrix product."""
    if groups == 1:
        return rows.sum(0, keepdim=True)
    if rows.dtype == torch.float64:
        return rows.new_zeros(groups, rows.shape[1]).index_add_(0, group, rows)
    return rows.new_zeros(groups, len(group)).scatter_(0, group[None], 1.0) @ rows
