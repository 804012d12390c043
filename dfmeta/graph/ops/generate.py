"""Operators that make tensors: constants, ranges, one-hot codes."""

from __future__ import annotations

import torch
from torch import Tensor

from dfmeta.graph.ops.registry import Node, numbers, operator


@operator("Constant")
def constant(node: Node) -> Tensor:
    """The tensor, number or list of numbers that the node's attribute holds."""
    (value,) = node.attributes.values()
    if isinstance(value, Tensor):
        return value.to(node.real) if node.real is not None and value.is_floating_point() else value
    return torch.tensor(value, dtype=node.dtype(node.output_types[0]))


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """A tensor of the given shape, filled with one number, 0 unless stated."""
    value = node.attributes.get("value", torch.zeros(1))
    return torch.full(numbers(shape), value.item(), dtype=node.dtype(node.output_types[0]))


@operator("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    """Ones on the k-th diagonal of a matrix of the shape of ``x``."""
    ones = torch.ones(x.shape, dtype=node.dtype(node.output_types[0]), device=x.device)
    k = node.int("k", 0)
    return ones.tril(k).triu(k)


@operator("Range", since=11, host=(0, 1, 2))
def numbers_between(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from ``start`` up to but without ``limit``, ``delta`` apart."""
    dtype = node.dtype(node.output_types[0])
    first, last, step = start.item(), limit.item(), delta.item()
    if step == 0:
        raise node.unfit("a delta of 0", "another step")
    if (last - first) * step <= 0:
        return torch.empty(0, dtype=dtype)
    return torch.arange(first, last, step, dtype=dtype)


@operator("OneHot", host=(1,))
def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """``values`` [off, on]: on at each index along a new axis; indices out of range are off everywhere."""
    (count,) = numbers(depth)
    axis = node.int("axis", -1)
    places = indices.to(torch.int64).unsqueeze(axis)
    places = torch.where(places < 0, places + count, places)
    shape = [1] * places.dim()
    shape[axis] = count
    hot = places == torch.arange(count, device=indices.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


@operator("NonZero")
def non_zero(node: Node, x: Tensor) -> Tensor:
    """Coordinates of the elements that are not 0, one column each."""
    return torch.nonzero(x).T.contiguous()


@operator("Trilu", since=14, host=(1,))
def triangle(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper or lower triangle of the last two axes, from the k-th diagonal."""
    offset = 0 if k is None else numbers(k)[0]
    return x.triu(offset) if node.int("upper", 1) else x.tril(offset)
