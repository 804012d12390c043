"""Padding and output sizes that convolution and pooling share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.registry import Node


class Window(NamedTuple):
    """A sliding window over the spatial axes; one entry for each axis.

    Attributes:
        kernel: size.
        strides: step.
        dilations: distance between taps.
        before: padding at the start.
        after: padding at the end.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether both ends are padded alike."""
        return self.before == self.after

    @property
    def extent(self) -> tuple[int, ...]:
        """How far the dilated kernel reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window(node: Node, kernel: Sequence[int], sizes: Sequence[int]) -> Window:
    """The node's window over an input of spatial ``sizes``, with ``auto_pad`` resolved.

    Raises:
        GraphError: attributes or rank that do not fit the kernel.
    """
    axes = len(kernel)
    strides = node.ints("strides", [1] * axes)
    dilations = node.ints("dilations", [1] * axes)
    pads = node.ints("pads", [0] * (2 * axes))
    if not 1 <= axes <= 3 or not len(sizes) == len(strides) == len(dilations) == axes or len(pads) != 2 * axes:
        raise node.unfit(f"a kernel of {axes} axes over {len(sizes)} spatial axes", "1, 2 or 3, all alike")
    plain = Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(pads[:axes]), tuple(pads[axes:]))
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return plain
    if mode == "VALID":
        return plain._replace(before=(0,) * axes, after=(0,) * axes)
    total = [
        max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        for size, stride, extent in zip(sizes, strides, plain.extent, strict=True)
    ]
    small = tuple(pad // 2 for pad in total)
    large = tuple(pad - pad // 2 for pad in total)
    return (
        plain._replace(before=small, after=large) if mode == "SAME_UPPER" else plain._replace(before=large, after=small)
    )


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """``x`` with its last axes padded by ``value``; negative amounts crop."""
    amounts = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    return F.pad(x, amounts, value=value) if any(amounts) else x
