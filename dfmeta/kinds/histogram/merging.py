"""Which bins are published: those of few units are merged towards zero."""

from __future__ import annotations

import numpy as np


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
