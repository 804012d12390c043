"""Streaming histogram over float-bit bins, group by group, in integers: the same on any machine, in any grouping.

Beside the values in each bin, the units that touched it are counted: they decide what may be published. How values are
counted is in :mod:`~dfmeta.kinds.histogram.counting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds._accumulators import restored
from dfmeta.kinds.histogram.counting import Tables, counted
from dfmeta.kinds.histogram.merging import merged_inward
from dfmeta.kinds.histogram.spec import BINS_BY_VALUE, PATTERNS

_STATE = ("count", "counts", "units")


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an :class:`Accumulator` of these sizes holds for as long as it lives, in bytes."""
    del features, configuration
    return groups * 8 * (1 + 2 * PATTERNS)


class Accumulator:
    """Values in each bin, and units that touched it, for each of ``groups`` groups.

    Args:
        features: d, the width of a sample; all features share one histogram.
        groups: G, the number of groups; 1 for a record over all units.
        configuration: nothing of it matters here.

    Attributes:
        groups: G.
        count: ``[G]`` int64, the units seen.
        counts: ``[G, 8192]`` int64, the values in each bin; a column is a bin.
        units: ``[G, 8192]`` int64, the units with at least one value in the bin.
    """

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        del configuration
        self.features, self.groups = features, groups
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.counts = torch.zeros(groups, PATTERNS, dtype=torch.int64)
        self.units = torch.zeros(groups, PATTERNS, dtype=torch.int64)

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch: :meth:`reduced`, and :meth:`take` what it gave."""
        self.take(self.reduced(samples, group))

    def reduced(self, samples: Tensor, group: Tensor) -> Tables:
        """What one batch adds; nothing is taken in yet.

        Args:
            samples: ``[n, d]``, any float dtype, rounded to float32; each row is a whole unit, seen only once.
            group: ``[n]`` int64, the group of each sample.

        Raises:
            StepError: a value that is not finite in float32.
        """
        rounded = samples.detach().to("cpu", torch.float32).contiguous()
        return counted(rounded.view(torch.int32), group.cpu(), self.groups)

    def take(self, reduced: Tables) -> None:
        """Take in what :meth:`reduced` gave."""
        self.count += reduced.seen
        self.counts += reduced.counts
        self.units += reduced.units

    def merge(self, other: Accumulator) -> None:
        """Take in everything that ``other`` saw, of other units. Exactly the same as one pass over both."""
        for name in _STATE:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def pooled(self) -> Accumulator:
        """One group that holds the sum of all groups."""
        total = Accumulator(self.features, 1, {})
        for name in _STATE:
            setattr(total, name, getattr(self, name).sum(0, keepdim=True))
        return total

    def without(self, groups: Sequence[int]) -> Accumulator:
        """The same to read out, with the given groups as if they had not been observed. Not to be updated."""
        left = Accumulator(self.features, self.groups, {})
        for name in _STATE:
            kept = getattr(self, name).clone()
            kept[list(groups)] = 0
            setattr(left, name, kept)
        return left

    def state(self) -> dict[str, np.ndarray]:
        """All of it: ``count`` int64 ``[G]``, ``counts`` and ``units`` int64 ``[G, 8192]``."""
        return {name: getattr(self, name).numpy().copy() for name in _STATE}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what :meth:`state` wrote down; ValueError if it does not fit."""
        for name, tensor in restored(self, _STATE, state).items():
            setattr(self, name, tensor)

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record, int64; shapes as in :func:`dfmeta.kinds.histogram.spec.layout`. ``bins`` has no group axis.

        Args:
            units: ``[G]`` int64, how many units each group holds; bins have their own counts of units.
            min_units: least units behind a published bin; bins of fewer are merged towards zero, see
                :func:`merged_inward`.
        """
        del units
        counts, touched = (table.numpy()[:, BINS_BY_VALUE] for table in (self.counts, self.units))
        merged = np.stack(
            [merged_inward(*pair, self.features, min_units) for pair in zip(counts, touched, strict=True)]
        )
        used = merged.any(0)
        return {
            "count": merged.sum(1),
            "bins": BINS_BY_VALUE[used],
            "counts": np.ascontiguousarray(merged[:, used]),
        }
