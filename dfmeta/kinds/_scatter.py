"""Streaming co-moments, group by group, in float64: exact, or sketched where they are too many numbers.

`spectrum` and `cross-spectrum` are read out of them.

The pairwise update is that of :mod:`dfmeta.kinds.moments.accumulate` with the outer product in place of the
square. Its rank-one correction is one more row beside the centred rows of the batch: their outer products sum to what
the batch adds to the co-moment. An exact accumulator multiplies those rows out, one matrix product for each group of
a batch; a sketched one hands them to Frequent Directions (:mod:`dfmeta.numerics.frequent_directions`), whose
guarantee therefore holds for the centred co-moment, wherever the batches were cut.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.kinds._accumulators import restored
from dfmeta.numerics.frequent_directions import append

UNITS_PER_VECTOR = 10


def merge_tolerance(configuration: Mapping[str, Any]) -> dict[str, float]:
    """How far each array of the state may be off, relative to its largest entry, when merging is not one pass.

    The rows of a sketch are not listed: two sketches of the same samples may hold other rows. What those describe
    agrees within the larger of the two bounds that :attr:`Scatter.shrinkage` holds.
    """
    if "sketch" in configuration:
        return {"count": 0.0, "mean": 1e-9, "trace": 1e-9}
    return {"count": 0.0, "mean": 1e-9, "comoment": 1e-9}


def scatter_bytes(width: int, block: tuple[int, int], groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that a :class:`Scatter` of these sizes holds, in bytes."""
    if "sketch" in configuration:
        return groups * 8 * (4 + width + 2 * int(configuration["sketch"]) * width)
    return groups * 8 * (1 + width + math.prod(block))


class Scatter:
    """Count, mean and a block of the centred co-moment of ``width`` numbers for each of ``groups`` groups.

    The co-moment is ``M = sum (x - mean)(x - mean)^T``. A kind derives from this, says which block of M it wants, and
    reads it out.

    Args:
        features: d, as the kind is created with.
        groups: G.
        configuration: ``sketch``, if it is there, is l, the directions that a sketch keeps.
        width: length of a sample.
        block: rows and columns of M that an exact accumulator holds: the first and the last so many.

    Attributes:
        count: ``[G]`` int64. mean: ``[G, width]`` float64.
        comoment: exact only: ``[G, *block]``, that block of M.
        rows: sketched only: ``[G, 2 l, width]``; ``rows[g]^T rows[g]`` stands for all of M.
        filled: sketched only: ``[G]`` int64, the rows in use.
        shrinkage: sketched only: ``[G]``, T: M less what the rows stand for is between 0 and T times the identity.
        trace: sketched only: ``[G]``, that of M, which is not sketched.
    """

    def __init__(
        self, features: int, groups: int, configuration: Mapping[str, Any], width: int, block: tuple[int, int]
    ) -> None:
        self.features, self.configuration, self.width, self.block = features, dict(configuration), width, block
        self.sketched = "sketch" in configuration
        self._clear(groups)

    def merge(self, other: Self) -> None:
        """Take in everything that ``other`` saw. The same as one pass over both, within :func:`merge_tolerance`."""
        for row in range(self.groups):
            self._absorb(row, other, row)

    def pooled(self) -> Self:
        """One group that holds the sum of all groups."""
        total = copy.copy(self)
        total._clear(1)
        for row in range(self.groups):
            total._absorb(0, self, row)
        return total

    def without(self, groups: Sequence[int]) -> Self:
        """The same to read out, with the given groups as if they had not been observed. Not to be updated.

        What is large is shared and not copied: that of a group whose count is 0 is never looked at.
        """
        left = copy.copy(self)
        left.count, left.mean = self.count.clone(), self.mean.clone()
        left.count[list(groups)] = 0
        left.mean[list(groups)] = 0
        return left

    def state(self) -> dict[str, np.ndarray]:
        """All of it, by the names of the attributes above; int64 and float64."""
        return {name: getattr(self, name).numpy().copy() for name in self._names()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down; ValueError if it does not fit."""
        found = restored(self, self._names(), state)
        if self.sketched and not ((found["filled"] >= 0) & (found["filled"] <= self.rows.shape[1])).all():
            raise ValueError(f"filled {found['filled'].tolist()}, not from 0 to {self.rows.shape[1]}")
        for name, tensor in found.items():
            setattr(self, name, tensor)

    def error_bound(self, group: int) -> float:
        """By how much any eigenvalue of the sketched covariance may be below that of the true one."""
        return float(self.shrinkage[group]) / int(self.count[group])

    def sketch(self, group: int) -> NDArray[np.float64]:
        """``[m, width]`` rows whose Gram matrix stands for the group's co-moment."""
        rows: NDArray[np.float64] = self.rows[group, : int(self.filled[group])].numpy()
        return rows

    def _take(self, samples: Tensor, group: Tensor) -> None:
        """Take in ``[n, width]`` samples of any float dtype, and the group of each, ``[n]`` int64."""
        samples = samples.to(torch.float64)
        for row in torch.unique(group).tolist():
            part = samples[group == row]
            mean = part.mean(0)
            correction = self._meet(row, len(part), mean)
            self._add(row, torch.cat([part - mean, correction[None]]))

    def _absorb(self, row: int, other: Self, other_row: int) -> None:
        count = int(other.count[other_row])
        if not count:
            return
        if self.sketched:
            self._append(row, torch.from_numpy(other.sketch(other_row)))
            self.shrinkage[row] += other.shrinkage[other_row]
            self.trace[row] += other.trace[other_row]
        else:
            self.comoment[row] += other.comoment[other_row]
        self._add(row, self._meet(row, count, other.mean[other_row])[None])

    def _add(self, row: int, rows: Tensor) -> None:
        """Add the outer products of ``rows [n, width]`` to a group's co-moment."""
        if self.sketched:
            self._append(row, rows)
            self.trace[row] += rows.square().sum()
        else:
            height, width = self.block
            self.comoment[row].addmm_(rows[:, :height].T, rows[:, -width:])

    def _append(self, row: int, rows: Tensor) -> None:
        # Rows of zeros add nothing, and an empty accumulator stays so.
        kept = rows[rows.any(1)].numpy()
        self.filled[row], subtracted = append(self.rows[row].numpy(), int(self.filled[row]), kept)
        self.shrinkage[row] += subtracted

    def _meet(self, row: int, count: int, mean: Tensor) -> Tensor:
        """Move count and mean on; return the ``[width]`` vector whose outer product corrects the co-moment."""
        before, total = int(self.count[row]), int(self.count[row]) + count
        delta = mean - self.mean[row]
        self.mean[row] += delta * (count / total)
        self.count[row] = total
        return delta * math.sqrt(before * count / total)

    def _clear(self, groups: int) -> None:
        self.groups = groups
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.mean = torch.zeros(groups, self.width, dtype=torch.float64)
        if self.sketched:
            capacity = 2 * int(self.configuration["sketch"])
            self.rows = torch.zeros(groups, capacity, self.width, dtype=torch.float64)
            self.filled = torch.zeros(groups, dtype=torch.int64)
            self.shrinkage = torch.zeros(groups, dtype=torch.float64)
            self.trace = torch.zeros(groups, dtype=torch.float64)
        else:
            self.comoment = torch.zeros(groups, *self.block, dtype=torch.float64)

    def _names(self) -> tuple[str, ...]:
        large = ("rows", "filled", "shrinkage", "trace") if self.sketched else ("comoment",)
        return ("count", "mean", *large)


def upper_float32(bound: float) -> np.float32:
    """The smallest float32 that is not below ``bound``: a bound that was rounded down would be none."""
    rounded = np.float32(bound)
    return rounded if float(rounded) >= bound else np.nextafter(rounded, np.float32(np.inf))
