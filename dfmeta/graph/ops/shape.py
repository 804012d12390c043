"""Views and shapes: what moves no numbers, or only asks how many there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfmeta.graph.ops.registry import Node, numbers, operator


@operator("Reshape", host=(1,))
def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """``x`` in a new shape; 0 keeps a size unless ``allowzero``, one -1 is worked out."""
    sizes = numbers(shape)
    if not node.int("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    """A matrix: the axes before ``axis`` by the axes from it on."""
    axis = node.int("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze")
def squeeze_attribute(node: Node, x: Tensor) -> Tensor:
    """``x`` without the given axes of size 1, or without all of them."""
    return x.squeeze(node.ints("axes", [])) if "axes" in node.attributes else x.squeeze()


@operator("Squeeze", since=13, host=(1,))
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """``x`` without the given axes of size 1, or without all of them."""
    return x.squeeze() if axes is None else x.squeeze(numbers(axes))


def _unsqueeze(x: Tensor, axes: list[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Unsqueeze")
def unsqueeze_attribute(node: Node, x: Tensor) -> Tensor:
    """``x`` with axes of size 1 put in; positions count in the result."""
    return _unsqueeze(x, node.ints("axes", []))


@operator("Unsqueeze", since=13, host=(1,))
def unsqueeze(node: Node, x: Tensor, axes: Tensor) -> Tensor:
    """``x`` with axes of size 1 put in; positions count in the result."""
    return _unsqueeze(x, numbers(axes))


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    """``x`` with its axes permuted; reversed when nothing is said."""
    return x.permute(node.ints("perm", list(reversed(range(x.dim())))))


@operator("Shape")
def shape_of(node: Node, x: Tensor) -> Tensor:
    """Sizes of ``x`` from ``start`` to ``end``, on the CPU, where shapes are used."""
    start, end = node.int("start", 0), node.int("end", x.dim())
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@operator("Size")
def size_of(node: Node, x: Tensor) -> Tensor:
    """Number of elements, on the CPU, where shapes are used."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("Identity", "Dropout")
def identity(node: Node, x: Tensor, *unused: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    """``x`` itself; Dropout does nothing in evaluation, and its optional mask keeps everything."""
    if len(node.outputs) > 1 and node.outputs[1]:
        return x, torch.ones_like(x, dtype=torch.bool)
    return x
