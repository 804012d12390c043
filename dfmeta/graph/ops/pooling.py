"""Pooling: maximum, average and p-norm, over windows or over whole planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator
from dfmeta.graph.ops.windows import Window, pad, window

_MAX: Final = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_CONV: Final = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _column_major(node: Node) -> str:
    return "storage_order 1" if node.int("storage_order", 0) else ""


@operator("MaxPool", refuse=_column_major)
def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Largest element of each window; the optional second output is its index in the flattened input."""
    w = _with_ceil(node, window(node, node.ints("kernel_shape", []), x.shape[2:]), x.shape[2:])
    real = x if x.is_floating_point() else x.to(torch.float32)
    wanted = len(node.outputs) > 1 and bool(node.outputs[1])
    padding: tuple[int, ...] = w.before
    if not w.symmetric or any(2 * p > k for p, k in zip(padding, w.kernel, strict=True)):
        real, padding = pad(real, w.before, w.after, -math.inf), (0,) * len(w.kernel)
    pool = _MAX[len(w.kernel)]
    if not wanted:
        y: Tensor = pool(real, w.kernel, w.strides, padding, w.dilations)
        return y.to(x.dtype)
    y, index = pool(real, w.kernel, w.strides, padding, w.dilations, return_indices=True)
    shift = [b - p for b, p in zip(w.before, padding, strict=True)]
    return y.to(x.dtype), _flat_index(index, real.shape[2:], x.shape, shift)


def _flat_index(index: Tensor, padded: Sequence[int], shape: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Indices within one padded plane to indices within the whole unpadded tensor."""
    flat = torch.zeros_like(index)
    scale = 1
    for size, original, offset in reversed(list(zip(padded, shape[2:], shift, strict=True))):
        flat = flat + (index % size - offset) * scale
        index, scale = index // size, scale * original
    planes = torch.arange(shape[0] * shape[1], device=flat.device) * scale
    return flat + planes.reshape(shape[0], shape[1], *[1] * len(padded))


def _with_ceil(node: Node, w: Window, sizes: Sequence[int]) -> Window:
    """The window padded further at the end, so that flooring gives the sizes that ``ceil_mode`` asks for.

    A window that would start in the padding after the data is dropped.
    """
    if not node.int("ceil_mode", 0):
        return w
    after = []
    for size, b, a, reach, stride in zip(sizes, w.before, w.after, w.extent, w.strides, strict=True):
        count = math.ceil((size + b + a - reach) / stride) + 1
        if (count - 1) * stride >= size + b:
            count -= 1
        after.append(max((count - 1) * stride + reach - size - b, 0))
    return w._replace(after=tuple(after))


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """Mean of each window; padding counts only with ``count_include_pad``, ceiling's extra room never."""
    stated = window(node, node.ints("kernel_shape", []), x.shape[2:])
    w = _with_ceil(node, stated, x.shape[2:])
    total = _window_sum(x, w)
    ones = x.new_ones(1, 1, *x.shape[2:])
    if node.int("count_include_pad", 0):
        inside = [min(a, s) for a, s in zip(w.after, stated.after, strict=True)]
        ones = pad(ones, w.before, inside, 1.0)
        rest = [a - i for a, i in zip(w.after, inside, strict=True)]
        return total / _window_sum(ones, w._replace(before=(0,) * len(rest), after=tuple(rest)))
    if not any(w.before) and not any(w.after):
        return total / math.prod(w.kernel)
    return total / _window_sum(ones, w)


def _window_sum(x: Tensor, w: Window) -> Tensor:
    """Sum over each window, zeros outside [n, c, ...]."""
    planes = pad(x, w.before, w.after)
    if max(w.dilations) == 1 and len(w.kernel) == 2:
        return F.avg_pool2d(planes, w.kernel, w.strides, divisor_override=1)
    folded = planes.reshape(-1, 1, *planes.shape[2:])
    ones = x.new_ones(1, 1, *w.kernel)
    y: Tensor = _CONV[len(w.kernel)](folded, ones, None, w.strides, 0, w.dilations)
    return y.reshape(*x.shape[:2], *y.shape[2:])


@operator("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    """p-norm of each window."""
    w = _with_ceil(node, window(node, node.ints("kernel_shape", []), x.shape[2:]), x.shape[2:])
    p = node.float("p", 2.0)
    return _window_sum(x.abs() ** p, w) ** (1 / p)


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    """Mean of each plane, sizes kept as 1."""
    return x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    """Largest element of each plane, sizes kept as 1."""
    return x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    """p-norm of each plane, sizes kept as 1."""
    p = node.float("p", 2.0)
    return (x.abs() ** p).sum(_spatial(x), keepdim=True) ** (1 / p)
