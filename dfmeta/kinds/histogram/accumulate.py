"""Streaming histogram over float-bit bins, group by group, in integers: the same on any machine, in any grouping.

Beside the values in each bin, the units that touched it are counted: they decide what may be published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.kinds._accumulators import restored
from dfmeta.kinds.histogram.spec import BINS_BY_VALUE, FIRST_NORMAL, NEGATIVE, PATTERN_SHIFT, PATTERNS

_STATE = ("count", "counts", "units")
# A table for each unit costs about 8 us; below this width sorting the unit's bins is cheaper.
_TABLE_WIDTH = 4096
# Units whose touched bins are summed at once: at most 255, since the sums are bytes.
_TABLE_ROWS = 64
# Values whose bins are sorted at once.
_SORTED_VALUES = 1 << 20
# Where the patterns of zero and denormals stand, beside 0 itself.
_JOINED = (slice(1, FIRST_NORMAL), slice(NEGATIVE, NEGATIVE + FIRST_NORMAL))


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
        """Take in one batch.

        Args:
            samples: ``[n, d]``, any float dtype, rounded to float32; each row is a whole unit, seen only once.
            group: ``[n]`` int64, the group of each sample.

        Raises:
            StepError: a value that is not finite in float32. Nothing of the batch is then taken in.
        """
        rounded = samples.detach().to("cpu", torch.float32).contiguous()
        _require_finite(rounded)
        group = group.cpu()
        self.count += torch.bincount(group, minlength=self.groups)
        count_in = _count_by_table if self.features >= _TABLE_WIDTH else _count_by_sorting
        count_in(rounded.numpy().view(np.uint32), group.numpy(), self.counts.numpy(), self.units.numpy())

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


def merged_inward(counts: np.ndarray, units: np.ndarray, features: int, min_units: int) -> np.ndarray:
    """The histogram of one group in which no bin, and so no extreme, rests on fewer than ``min_units`` units.

    From either end towards zero, bins give their values to the next one until enough units are together, see
    :func:`_units_at_least`. What arrives at bin 0 on both sides, if that makes too few with its own, goes to the
    published bin nearest to zero (the positive one of two). Where no bin has enough, nothing is published. The total
    is kept in all other cases.

    Args:
        counts: ``[8129]`` int64, values in each bin, in the order of ``spec.BINS_BY_VALUE``.
        units: ``[8129]`` int64, units that touched each bin.
        features: d, how many values a unit has.
        min_units: least units behind a bin.

    Returns:
        ``[8129]`` int64.
    """
    merged, zero, least = np.zeros_like(counts), len(counts) // 2, max(min_units, 1)
    touched = np.flatnonzero(units)
    left = touched[touched == zero].tolist()
    for inward in (touched[touched > zero][::-1], touched[touched < zero]):
        runs = _runs_of_enough(inward, units[inward], features, least)
        left += runs.pop()
        for run in runs:
            merged[run[-1]] = counts[run].sum()
    published = np.flatnonzero(merged)[::-1]  # of two at the same distance from zero, the positive one comes first
    of_left = units[left]
    if _units_at_least(of_left.max(initial=0), of_left.sum(), len(left), features) >= least:
        merged[zero] = counts[left].sum()
    elif published.size:
        merged[published[np.abs(published - zero).argmin()]] += counts[left].sum()
    return merged


def _runs_of_enough(places: np.ndarray, units: np.ndarray, features: int, least: int) -> list[list[int]]:
    """The places in their order, cut wherever enough units are together; the last run is what is left over."""
    runs: list[list[int]] = [[]]
    most = total = 0
    for place, number in zip(places.tolist(), units.tolist(), strict=True):
        runs[-1].append(place)
        most, total = max(most, number), total + number
        if _units_at_least(most, total, len(runs[-1]), features) >= least:
            runs.append([])
            most = total = 0
    return runs


def _units_at_least(most: int, total: int, bins: int, features: int) -> int:
    """A lower bound on the different units behind several bins.

    Args:
        most: units of the bin that most units touched.
        total: sum of the units of each bin.
        bins: k, how many bins.
        features: d; a unit has d values, and so is in at most the smaller of d and k of these bins.
    """
    return max(int(most), -(-int(total) // max(min(features, bins), 1)))


def _require_finite(values: Tensor) -> None:
    """Smallest and largest are finite only if all are: a NaN anywhere makes both NaN."""
    if values.numel() and not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        raise StepError(
            "histogram",
            "a value that is not finite in float32",
            "finite values",
            "Record this site without a histogram, or look for the input that overflows it.",
        )


def _count_by_table(patterns: np.ndarray, group: np.ndarray, counts: np.ndarray, units: np.ndarray) -> None:
    """Add one table for each unit.

    Args:
        patterns: ``[n, d]`` uint32, float32 values by their bits.
        group: ``[n]`` int64, the group of each unit.
        counts: ``[G, 8192]`` int64, added to.
        units: ``[G, 8192]`` int64, added to.
    """
    bins = np.empty(patterns.shape[1], np.uint32)
    # torch counts int32 as they are; numpy would copy them to int64 first.
    shared = torch.from_numpy(bins.view(np.int32))
    touched = np.empty((_TABLE_ROWS, PATTERNS), bool)
    for start in range(0, len(patterns), _TABLE_ROWS):
        owners = group[start : start + _TABLE_ROWS]
        for number, owner in enumerate(owners):
            np.right_shift(patterns[start + number], PATTERN_SHIFT, out=bins)
            table = torch.bincount(shared, minlength=PATTERNS).numpy()
            counts[owner] += table
            np.not_equal(table, 0, out=touched[number])
        filled = touched[: len(owners)]
        for columns in _JOINED:
            filled[:, 0] |= filled[:, columns].any(1)
            filled[:, columns] = False
        for owner in np.unique(owners):
            units[owner] += np.add.reduce(filled[owners == owner].view(np.uint8), axis=0, dtype=np.uint8)
    for columns in _JOINED:
        counts[:, 0] += counts[:, columns].sum(1)
        counts[:, columns] = 0


def _count_by_sorting(patterns: np.ndarray, group: np.ndarray, counts: np.ndarray, units: np.ndarray) -> None:
    """Add the runs of each unit's sorted bins; arguments as in :func:`_count_by_table`."""
    width = max(1, patterns.shape[1])
    step = max(1, _SORTED_VALUES // width)
    for start in range(0, len(patterns), step):
        bins = patterns[start : start + step] >> PATTERN_SHIFT
        bins *= (bins & (NEGATIVE - 1)) >= FIRST_NORMAL  # zeros and denormals
        bins.sort(axis=1)
        first = np.ones(bins.shape, bool)
        np.not_equal(bins[:, 1:], bins[:, :-1], out=first[:, 1:])
        runs = np.count_nonzero(first, axis=1)
        begin = np.flatnonzero(first)
        cells = np.repeat(group[start : start + step] * PATTERNS, runs) + bins.reshape(-1)[begin]
        np.add.at(counts.reshape(-1), cells, np.diff(begin, append=bins.size))
        np.add.at(units.reshape(-1), cells, 1)
