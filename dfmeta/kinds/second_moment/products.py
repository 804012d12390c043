"""Sums of products over many samples: formed block by block in the activations' precision, added in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.scratch import scratch

# Rounding in a float32 sum of this many products stays within about 1e-6 of the exact one, relative to the largest
# entry, even where all products are equal and err alike; of more rows it does not.
BLOCK_ROWS = 64
# So many of these sums are added up in float32, which costs less than a tenth of that, and their sums in float64.
_BLOCKS = 8
# Values that the products of several blocks may take before they are added up: they stay in the cache.
_PRODUCT_VALUES = 1 << 19
# Values that one block of unfolded patches or of a batch may hold, so that it stays in the cache.
BLOCK_VALUES = 1 << 20


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
    lead, rows = math.prod(left.shape[:-2]), left.shape[-2]
    sides = [side.reshape(lead, rows, side.shape[-1]) for side in (left, right)]
    shape = (left.shape[-1], right.shape[-1])
    total = torch.zeros(lead, *shape, dtype=torch.float64, device=left.device)
    whole = rows // BLOCK_ROWS * BLOCK_ROWS
    step = max(_BLOCKS, _PRODUCT_VALUES // max(lead * math.prod(shape), 1)) * BLOCK_ROWS
    for start in range(0, whole, step):
        stop = min(start + step, whole)
        blocks = lead * (stop - start) // BLOCK_ROWS
        _add_products(total, [side[:, start:stop].reshape(blocks, BLOCK_ROWS, side.shape[2]) for side in sides])
    if whole < rows:
        _add_products(total, [side[:, whole:] for side in sides])
    return total.reshape(*left.shape[:-2], *shape)


def _add_products(total: Tensor, sides: Sequence[Tensor]) -> None:
    """Add to ``[lead, c, d]`` the products of blocks ``[lead * b, rows, c]`` and ``[lead * b, rows, d]``."""
    left, right = sides
    products = scratch("products", (len(left), *total.shape[1:]), left)
    torch.bmm(left.mT, right, out=products)
    blocks = products.view(len(total), -1, *total.shape[1:])
    whole = blocks.shape[1] // _BLOCKS * _BLOCKS
    if whole:
        few = blocks[:, :whole].reshape(len(total), -1, _BLOCKS, *total.shape[1:])
        total += few.sum(2).sum(1, dtype=torch.float64)
    if whole < blocks.shape[1]:
        total += blocks[:, whole:].sum(1)


def sums(values: Tensor) -> Tensor:
    """``sum_i x_i`` over axis 0, in float64."""
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=values.device)
    for start in range(0, len(rows), BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        # Faster than a sum along the first axis.
        total += torch.mv(part.T, part.new_ones(len(part)))
    return total.reshape(values.shape[1:])


def batches(value: Tensor, values_each: int) -> Iterator[Tensor]:
    """The batch in parts of whole units whose working copies, of that many values each, stay in the cache."""
    step = max(1, min(BLOCK_ROWS, BLOCK_VALUES // max(values_each, 1)))
    for start in range(0, max(len(value), 1), step):
        yield value[start : start + step]


def patches(value: Tensor, window: Window) -> Tensor:
    """What the kernel covers, by convolution group; it may lie in working memory: to be used up before the next call.

    Args:
        value: ``[n, c, *spatial]``.
        window: of as many spatial axes.

    Returns:
        ``[g, n * positions, d]``: features in the order (channel, tap), as torch.nn.functional.unfold has them.
    """
    return tap_rows(value, window).mT.flatten(2)


def tap_rows(value: Tensor, window: Window) -> Tensor:
    """The same as ``[g, n * positions, taps, channels]``, in working memory: to be used up before the next call."""
    groups, axes = window.groups, len(window.kernel)
    channels = value.shape[1] // groups
    outputs = window.output_sizes(value.shape[2:])
    cut = _padded(value, window)
    for axis, (size, stride, dilation) in enumerate(zip(window.kernel, window.strides, window.dilations, strict=True)):
        # Each axis is cut into windows as long as the dilated kernel, of which the taps are kept.
        reach = (size - 1) * dilation + 1
        if not outputs[axis]:
            return value.new_zeros(groups, 0, window.taps, channels)
        cut = cut.unfold(1 + axis, reach, stride)[..., ::dilation]
    rows = scratch("patches", (groups, len(value), *outputs, *window.kernel, channels), value)
    split = cut.reshape(*cut.shape[: 1 + axes], groups, channels, *cut.shape[2 + axes :])
    places = range(1, 1 + axes)
    rows.copy_(split.permute(1 + axes, 0, *places, *(place + axes + 2 for place in places), 2 + axes))
    return rows.view(groups, len(value) * math.prod(outputs), window.taps, channels)


def _padded(value: Tensor, window: Window) -> Tensor:
    """``[n, *spatial, c]`` with zeros around it: what a tap sees of all channels is then one piece of memory."""
    sizes = [sum(sides) for sides in zip(value.shape[2:], window.before, window.after, strict=True)]
    padded = scratch("padded", (len(value), *sizes, value.shape[1]), value).zero_()
    inner = padded
    for axis, (size, before) in enumerate(zip(value.shape[2:], window.before, strict=True)):
        inner = inner.narrow(1 + axis, before, size)
    inner.copy_(value.movedim(1, -1))
    return padded


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
