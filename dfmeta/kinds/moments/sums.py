"""Sums of one batch by group, and what they add to a mean and to centred squares.

They are taken about a shift (the shifted algorithm of Chan, Golub and LeVeque, "Algorithms for computing the sample
variance", The American Statistician 37(3), 1983): for vectors, the mean of their group in the batch, so that float32
will do. The shift depends on nothing but the batch, so that parts of the data add up to the same in any grouping.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfmeta.kinds._accumulators import scripted

# Positions that are summed in float32, by pairs, before float64 takes over; and units, one after the other.
BLOCK_ROWS, BLOCK_UNITS = 4096, 512
# Positions whose squares are added up one after the other.
_RUN = 256
# float32 keeps 2^-24 of a sum of squares; of what is left of it, if it is this many times smaller, about 1e-6 less.
CANCELLATION = 8.0
# Groups whose rows are summed by one matrix product.
_PRODUCT_GROUPS = 64
# Values that are worked on together: 1 MB of float32.
_CHUNK_VALUES = 1 << 18

# The shift ``[G, d]``, and the sums over each group of the distances from it and of their squares, ``[G, d]`` float64.
Sums = tuple[Tensor, Tensor, Tensor]


def sums_about_zero(samples: Tensor, group: Tensor, groups: int) -> Sums:
    """Sums of maps ``[n, d, p]`` float32, read where they lie."""
    first, second = _of_maps(samples, BLOCK_ROWS, _CHUNK_VALUES, _RUN)
    shift = torch.zeros(groups, samples.shape[1], dtype=torch.float64)
    return shift, shift.index_add(0, group, first), shift.index_add(0, group, second)


def sums_about(samples: Tensor, group: Tensor, shift: Tensor) -> Sums:
    """Sums about each group's shift ``[G, d]`` of ``[n, d]`` or ``[n, d, p]``, in their own precision."""
    rows = max(1, _CHUNK_VALUES // max(1, samples[:1].numel()))
    near, first, second = _about(
        samples[:BLOCK_UNITS], group[:BLOCK_UNITS], shift, rows, BLOCK_ROWS, _PRODUCT_GROUPS, _RUN
    )
    for start in range(BLOCK_UNITS, len(samples), BLOCK_UNITS):
        part = slice(start, start + BLOCK_UNITS)
        _, one, two = _about(samples[part], group[part], shift, rows, BLOCK_ROWS, _PRODUCT_GROUPS, _RUN)
        first, second = first + one, second + two
    return near, first, second


def sums_about_mean(samples: Tensor, group: Tensor, count: Tensor) -> Sums:
    """Sums about the mean of each group of ``count`` samples, or nearly so."""
    rows, groups = _of_maps(samples, BLOCK_ROWS, _CHUNK_VALUES, _RUN)[0] if samples.dim() == 3 else samples, len(count)
    if groups > _PRODUCT_GROUPS:
        total = rows.new_zeros(groups, rows.shape[1]).index_add_(0, group, rows)
    else:
        total = rows.new_zeros(groups, len(group)).scatter_(0, group[None], 1.0) @ rows
    return sums_about(samples, group, total / count.clamp(min=1).to(torch.float64)[:, None])


def added_by(sums: Sums, count: Tensor, seen: tuple[Tensor, Tensor], cancellation: float = math.inf) -> Sums:
    """What the sums of ``count`` samples ``[G]`` add to count and mean ``seen``, and which features lost too much.

    Returns:
        To the mean, to the centred squares, both ``[G, d]``; bool ``[d]``, features of whose sum of squares less than
        1 part in ``cancellation`` is left, or that are not finite. It depends on this batch alone.
    """
    return _added(sums[0], sums[1], sums[2], count, seen[0], seen[1], cancellation)


def combined(count: Tensor, mean: Tensor, squares: Tensor, seen: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What ``count`` samples of that mean and those centred squares add to count and mean ``seen`` (eq. 2.1)."""
    return _combined(count, mean, squares, seen[0], seen[1])


@scripted
def _combined(count: Tensor, mean: Tensor, squares: Tensor, seen: Tensor, seen_mean: Tensor) -> tuple[Tensor, Tensor]:
    share = (count.to(torch.float64) / (seen + count).clamp(min=1)).unsqueeze(1)
    delta = mean - seen_mean
    return delta * share, torch.addcmul(squares, delta * delta, seen.unsqueeze(1) * share)


@scripted
def _added(
    shift: Tensor, first: Tensor, second: Tensor, count: Tensor, seen: Tensor, seen_mean: Tensor, cancellation: float
) -> tuple[Tensor, Tensor, Tensor]:
    offset = first / count.clamp(min=1).unsqueeze(1)
    squares = torch.addcmul(second, offset, first, value=-1)
    kept = torch.isfinite(second)
    if math.isfinite(cancellation):
        kept = kept.logical_and(second <= cancellation * squares)
    mean, squares = _combined(count, shift + offset, squares, seen, seen_mean)
    return mean, squares, kept.all(0).logical_not()


@scripted
def _squares(maps: Tensor, run: int) -> Tensor:
    """``[n, d]`` float64 sums of squares of ``[n, d, p]`` with contiguous positions, ``run`` of them in float32.

    A norm adds up one after the other, so that equal values all err alike: over many positions by too much.
    """
    whole = maps.size(2) // run * run
    found: Tensor = torch.linalg.vector_norm(maps[:, :, whole:], dim=2).to(torch.float64).square_()
    if whole > 0:
        runs = maps[:, :, :whole].view(maps.size(0), maps.size(1), -1, run)
        found += torch.linalg.vector_norm(runs, dim=3).to(torch.float64).square_().sum(2)
    return found


@scripted
def _of_maps(samples: Tensor, block: int, values: int, run: int) -> tuple[Tensor, Tensor]:
    """``[n, d]`` float64 sums and sums of squares of ``[n, d, p]``; positions that lie apart are brought together."""
    first = torch.zeros(samples.shape[:2], dtype=torch.float64)
    second = torch.zeros_like(first)
    for start in range(0, samples.size(2), block):
        part = samples[:, :, start : start + block]
        if part.stride(2) == 1:
            first += part.sum(2)
            second += _squares(part, run)
            continue
        rows = max(1, values // max(1, part.size(1) * part.size(2)))
        room = torch.empty_like(part[:rows], memory_format=torch.contiguous_format)
        for unit in range(0, part.size(0), rows):
            few = part[unit : unit + rows]
            near = room[: few.size(0)].copy_(few)
            first[unit : unit + rows] += near.sum(2)
            second[unit : unit + rows] += _squares(near, run)
    return first, second


@scripted
def _about(
    samples: Tensor, group: Tensor, shift: Tensor, rows: int, block: int, most_groups: int, run: int
) -> tuple[Tensor, Tensor, Tensor]:
    near, groups = shift.to(samples.dtype), shift.size(0)
    # Positions are many: beyond one unit, their sums are formed in float64.
    precision = samples.dtype if samples.dim() == 2 else torch.float64
    product = groups <= most_groups
    member = torch.zeros(groups if product else 0, group.size(0), dtype=precision)
    if product:
        member.scatter_(0, group.unsqueeze(0), 1.0)
    first, second = torch.zeros_like(shift, dtype=precision), torch.zeros_like(shift, dtype=precision)
    room = torch.empty_like(samples[:rows], memory_format=torch.contiguous_format)
    for start in range(0, samples.size(0), rows):
        part, owners = samples[start : start + rows], group[start : start + rows]
        of_unit = near.index_select(0, owners)
        distance = torch.sub(part, of_unit if part.dim() == 2 else of_unit.unsqueeze(2), out=room[: part.size(0)])
        if part.dim() == 3:
            one, two = _of_maps(distance, block, distance.numel(), run)
        else:
            one, two = distance, distance.square()
        if product:
            first.addmm_(member[:, start : start + rows], one)
            second.addmm_(member[:, start : start + rows], two)
        else:
            first.index_add_(0, owners, one)
            second.index_add_(0, owners, two)
    return near.to(torch.float64), first.to(torch.float64), second.to(torch.float64)
