"""Conv and ConvTranspose, over one to three spatial axes."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator
from dfmeta.graph.ops.windows import Window, pad, window

_CONV: Final = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: Final = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv")
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cross-correlation of ``x`` [n, c, ...] with ``weight`` [m, c / group, ...]."""
    w = window(node, weight.shape[2:], x.shape[2:])
    padding = w.before
    if not w.symmetric:
        x, padding = pad(x, w.before, w.after), (0,) * len(w.kernel)
    return _CONV[len(w.kernel)](x, weight, bias, w.strides, padding, w.dilations, node.int("group", 1))


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gradient of a convolution with respect to its input; ``weight`` is [c, m / group, ...].

    The full result is computed first and then cropped, which is right for any mix of asymmetric pads,
    ``output_padding`` and ``output_shape``.
    """
    axes = weight.dim() - 2
    w = window(node, weight.shape[2:], x.shape[2:])
    extra = node.ints("output_padding", [0] * axes)
    sizes = _transposed_sizes(node, x, w, extra)
    y: Tensor = _TRANSPOSE[axes](x, weight, None, w.strides, 0, 0, node.int("group", 1), w.dilations)
    before = _crop_before(node, y, w, sizes, extra)
    full = y.shape[2:]
    y = pad(y, [-b for b in before], [size + b - f for size, b, f in zip(sizes, before, full, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * axes)


def _transposed_sizes(node: Node, x: Tensor, w: Window, extra: list[int]) -> list[int]:
    stated = node.ints("output_shape", [])
    if stated:
        return stated[-len(w.kernel) :]
    if node.text("auto_pad", "NOTSET").startswith("SAME"):
        return [size * stride for size, stride in zip(x.shape[2:], w.strides, strict=True)]
    return [
        stride * (size - 1) + more + reach - b - a
        for size, stride, more, reach, b, a in zip(
            x.shape[2:], w.strides, extra, w.extent, w.before, w.after, strict=True
        )
    ]


def _crop_before(node: Node, y: Tensor, w: Window, sizes: list[int], extra: list[int]) -> list[int]:
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET" and not node.ints("output_shape", []):
        return list(w.before)
    total = [max(f + more - size, 0) for f, more, size in zip(y.shape[2:], extra, sizes, strict=True)]
    return [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]
