"""Sums of products over many samples: formed block by block in the activations' precision, added in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Window

# Rounding in a float32 sum of this many products stays within 1e-6 of the exact one, relative to the roots of the two
# diagonal entries that it belongs to; ten times as many would not.
BLOCK_ROWS = 128
# Values that the products of several blocks may take before they are added up.
_PRODUCT_VALUES = 1 << 22
# Values that one block of unfolded patches or of a batch may hold, so that it stays in the cache.
BLOCK_VALUES = 1 << 19


def working(value: Tensor, exact: bool) -> Tensor:
    """The activations in the precision in which they are multiplied: float32 stays, unless ``exact``; else float64."""
    return value if value.dtype == torch.float32 and not exact else value.to(torch.float64)


def gram(rows: Tensor) -> Tensor:
    """``sum_i x_i x_i^T`` for each leading index.

    Args:
        rows: ``[..., m, d]`` float32 or float64.

    Returns:
        ``[..., d, d]`` float64.
    """
    return cross(rows, rows)


def cross(left: Tensor, right: Tensor) -> Tensor:
    """``sum_i x_i y_i^T`` for each leading index, ``[..., c, d]`` float64 from ``[..., m, c]`` and ``[..., m, d]``."""
    size = left.shape[-1] * right.shape[-1]
    total = left.new_zeros((*left.shape[:-2], left.shape[-1], right.shape[-1]), dtype=torch.float64)
    whole = left.shape[-2] // BLOCK_ROWS
    step = max(1, _PRODUCT_VALUES // max(size, 1))
    for start in range(0, whole, step):
        rows = slice(start * BLOCK_ROWS, min(start + step, whole) * BLOCK_ROWS)
        blocks = [_in_blocks(side[..., rows, :]) for side in (left, right)]
        total += (blocks[0].mT @ blocks[1]).sum(-3, dtype=torch.float64)
    rest = slice(whole * BLOCK_ROWS, None)
    return total + left[..., rest, :].mT @ right[..., rest, :]


def _in_blocks(rows: Tensor) -> Tensor:
    """``[..., b, BLOCK_ROWS, d]`` from ``[..., b * BLOCK_ROWS, d]``."""
    return rows.reshape(*rows.shape[:-2], -1, BLOCK_ROWS, rows.shape[-1])


def sums(values: Tensor) -> Tensor:
    """``sum_i x_i`` over axis 0, in float64."""
    total = values.new_zeros(values.shape[1:], dtype=torch.float64)
    for start in range(0, len(values), BLOCK_ROWS):
        total += values[start : start + BLOCK_ROWS].sum(0)
    return total


def batches(value: Tensor, values_each: int) -> Iterator[Tensor]:
    """The batch in parts of whole units whose working copies, of that many values each, stay in the cache."""
    step = max(1, min(BLOCK_ROWS, BLOCK_VALUES // max(values_each, 1)))
    for start in range(0, max(len(value), 1), step):
        yield value[start : start + step]


def patches(value: Tensor, window: Window) -> Tensor:
    """What the kernel covers, by convolution group; a copy.

    Args:
        value: ``[n, c, *spatial]``.
        window: of as many spatial axes.

    Returns:
        ``[g, n * positions, d]``: features in the order (channel, tap), as torch.nn.functional.unfold has them.
    """
    axes = len(window.kernel)
    amounts = [size for pair in zip(window.before[::-1], window.after[::-1], strict=True) for size in pair]
    padded = F.pad(value, amounts)
    for axis, (size, stride, dilation) in enumerate(zip(window.kernel, window.strides, window.dilations, strict=True)):
        # Each axis is cut into windows as long as the dilated kernel, of which the taps are kept.
        reach = (size - 1) * dilation + 1
        if padded.shape[2 + axis] < reach:
            return value.new_zeros(window.groups, 0, value.shape[1] // window.groups * window.taps)
        padded = padded.unfold(2 + axis, reach, stride)[..., ::dilation]
    count, channels = value.shape[:2]
    grouped = padded.reshape(count, window.groups, channels // window.groups, *padded.shape[2:])
    places = range(3, 3 + axes)
    ordered = grouped.permute(1, 0, *places, 2, *(place + axes for place in places))
    positions = count * math.prod(ordered.shape[2 : 2 + axes])
    rows: Tensor = ordered.reshape(window.groups, positions, channels // window.groups * window.taps)
    return rows


def tap_sums(per_position: Tensor, window: Window) -> Tensor:
    """What each tap sees in sum, from what each position of the map holds in sum.

    Args:
        per_position: ``[c, *spatial]`` float64, summed over units.
        window: of as many spatial axes.

    Returns:
        ``[g, d]`` float64, features in the order (channel, tap).
    """
    found = per_position
    for axis, size in enumerate(per_position.shape[1:]):
        use = torch.from_numpy(window.tap_use(axis, size).astype(np.float64)).to(found)
        # Axis 1 is the next spatial one; its taps take the last place.
        found = torch.tensordot(found, use, dims=([1], [1]))
    return found.reshape(window.groups, -1)
