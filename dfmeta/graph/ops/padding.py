"""Pad, in all four modes, over any axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.graph.ops.indexing import rearranged
from dfmeta.graph.ops.registry import Node, numbers, operator


@operator("Pad")
def pad_attribute(node: Node, x: Tensor) -> Tensor:
    """``x`` with room added (or cropped, where negative) as the attribute ``pads`` says."""
    return _pad(node, x, node.ints("pads", []), list(range(x.dim())), node.float("value", 0.0))


@operator("Pad", since=11, host=(1, 2, 3))
def pad_input(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    """``x`` with room added (or cropped, where negative) at both ends of ``axes``."""
    along = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in numbers(axes)]
    return _pad(node, x, numbers(pads), along, 0 if value is None else value.item())


def _pad(node: Node, x: Tensor, pads: list[int], axes: list[int], value: float) -> Tensor:
    mode = node.text("mode", "constant")
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))
    if mode == "constant":
        amounts = [side.get(axis, 0) for axis in reversed(range(x.dim())) for side in (before, after)]
        if x.dtype == torch.bool:
            return F.pad(x.to(torch.uint8), amounts, value=float(value)).to(torch.bool)
        return F.pad(x, amounts, value=value)
    for axis in axes:
        if before[axis] or after[axis]:
            size = x.shape[axis]
            x = rearranged(x, axis, [_source(mode, i, size) for i in range(-before[axis], size + after[axis])])
    return x


def _source(mode: str, place: int, size: int) -> int:
    """Which element a padded place repeats."""
    if mode == "edge":
        return min(max(place, 0), size - 1)
    if mode == "wrap":
        return place % size
    period = max(2 * (size - 1), 1)
    place %= period
    return place if place < size else period - place
