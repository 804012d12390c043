"""How the values of one batch are counted: exactly, and in few passes over them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.kinds._accumulators import scripted
from dfmeta.kinds.histogram.spec import FIRST_NON_FINITE, FIRST_NORMAL, NEGATIVE, PATTERN_SHIFT, PATTERNS

# Below this many values, sorting a unit's bins is cheaper than a table for it.
_TABLE_WIDTH = 768
# Values and units that are counted at once, so few that they and their tables stay in a processor's cache.
_TABLE_VALUES, _TABLE_ROWS = 1 << 18, 16
# Values whose bins are sorted at once.
_SORTED_VALUES = 1 << 20


class Tables(NamedTuple):
    """Units seen ``[G]``, values in each bin and units that touched it ``[G, 8192]``; all int64."""

    seen: Tensor
    counts: Tensor
    units: Tensor


def counted(patterns: Tensor, group: Tensor, groups: int) -> Tables:
    """Count the values of each group.

    Args:
        patterns: ``[n, d]`` int32, float32 values by their bits.
        group: ``[n]`` int64, the group of each unit.
        groups: G.

    Raises:
        StepError: a value that is not finite.
    """
    counts, units = torch.zeros(2, groups, PATTERNS, dtype=torch.int64)
    width = max(1, patterns.shape[1])
    if width >= _TABLE_WIDTH:
        rows = min(max(1, _TABLE_VALUES // width), _TABLE_ROWS)
        _add_by_table(patterns, group, counts, units, rows, PATTERN_SHIFT, FIRST_NORMAL, NEGATIVE)
        counts, units = counts.roll(NEGATIVE, 1), units.roll(NEGATIVE, 1)
    else:
        for start in range(0, len(patterns), step := max(1, _SORTED_VALUES // width)):
            part = slice(start, start + step)
            _add_by_sorting(patterns[part].numpy().view(np.uint32), group[part], counts.numpy(), units.numpy())
    if any(counts[:, sign + FIRST_NON_FINITE : sign + NEGATIVE].any() for sign in (0, NEGATIVE)):
        raise StepError(
            "histogram",
            "a value that is not finite in float32",
            "finite values",
            "Record this site without a histogram, or look for the input that overflows it.",
        )
    return Tables(torch.bincount(group, minlength=groups), counts, units)


@scripted
def _add_by_table(
    patterns: Tensor, group: Tensor, counts: Tensor, units: Tensor, rows: int, shift: int, normal: int, negative: int
) -> None:
    """Add a table for each unit, as wide as the bins that occur: it also says which ones the unit touched.

    Args:
        patterns: ``[n, d]`` int32, float32 values by their bits.
        group: ``[n]`` int64, the group of each unit.
        counts: ``[G, 8192]`` int64, added to. Bins are signed numbers here, and begin at -4096.
        units: ``[G, 8192]`` int64, likewise.
        rows: units that are counted at once.
        shift: lower bits that are not part of a bin.
        normal: the first bin above zero and denormals.
        negative: bins of a sign.
    """
    bins = torch.empty_like(patterns[:rows])
    for start in range(0, patterns.size(0), rows):
        part = patterns[start : start + rows]
        cells = bins[: part.size(0)]
        torch.bitwise_right_shift(part, shift, out=cells)
        least, most = torch.aminmax(cells)
        zero = max(-int(least), 0)
        width = max(int(most), 0) + zero + 1
        cells += torch.arange(zero, part.size(0) * width + zero, width, dtype=torch.int32).unsqueeze(1)
        table = torch.bincount(cells.flatten(), minlength=part.size(0) * width).view(-1, width)
        for first in (zero, zero - negative):  # zeros of either sign, and denormals
            begin, end = max(first, 0), min(first + normal, width)
            if begin < end:
                joined = table[:, begin:end].sum(1)
                table[:, begin:end] = 0
                table[:, zero] += joined
        owners = group[start : start + rows]
        of_counts, of_units = (
            counts[:, negative - zero : negative - zero + width],
            units[:, negative - zero : negative - zero + width],
        )
        if counts.size(0) == 1:
            of_counts += table.sum(0)
            of_units += table.clamp_(max=1).sum(0)
        else:
            of_counts.index_add_(0, owners, table)
            of_units.index_add_(0, owners, table.clamp_(max=1))


def _add_by_sorting(patterns: np.ndarray, group: Tensor, counts: np.ndarray, units: np.ndarray) -> None:
    """Add the runs of each unit's sorted bins, to ``[G, 8192]``."""
    bins = patterns >> PATTERN_SHIFT
    bins *= (bins & (NEGATIVE - 1)) >= FIRST_NORMAL  # zeros and denormals
    bins.sort(axis=1)
    first = np.ones(bins.shape, bool)
    np.not_equal(bins[:, 1:], bins[:, :-1], out=first[:, 1:])
    runs = np.count_nonzero(first, axis=1)
    begin = np.flatnonzero(first)
    cells = np.repeat(group.numpy() * PATTERNS, runs) + bins.reshape(-1)[begin]
    np.add.at(counts.reshape(-1), cells, np.diff(begin, append=bins.size))
    np.add.at(units.reshape(-1), cells, 1)
