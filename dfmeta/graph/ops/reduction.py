"""Reductions along axes, and what orders or accumulates along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from dfmeta.graph.ops.registry import Node, numbers, operator

_Reduce = Callable[[Tensor, list[int]], Tensor]


def _mean(x: Tensor, axes: list[int]) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=True)
    return torch.div(x.sum(axes, keepdim=True), math.prod(x.shape[a] for a in axes), rounding_mode="trunc")


def _sum(x: Tensor, axes: list[int]) -> Tensor:
    return x.sum(axes, keepdim=True)


def _prod(x: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _l2(x: Tensor, axes: list[int]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=True)  # its gradient at 0 is 0, not NaN
    return norm


_REDUCTIONS: Final[dict[str, _Reduce]] = {
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "ReduceProd": _prod,
    "ReduceMax": lambda x, axes: x.amax(axes, keepdim=True),
    "ReduceMin": lambda x, axes: x.amin(axes, keepdim=True),
    "ReduceL1": lambda x, axes: _sum(x.abs(), axes),
    "ReduceL2": _l2,
    "ReduceLogSum": lambda x, axes: _sum(x, axes).log(),
    "ReduceLogSumExp": lambda x, axes: torch.logsumexp(x, axes, keepdim=True),
    "ReduceSumSquare": lambda x, axes: _sum(x.square(), axes),
}


def _reduce(node: Node, x: Tensor, stated: list[int]) -> Tensor:
    axes = sorted({axis % x.dim() for axis in stated}) if stated else list(range(x.dim()))
    y = _REDUCTIONS[node.op](x, axes).to(x.dtype) if axes else _REDUCTIONS[node.op](x.reshape(1), [0]).reshape(())
    return y if node.int("keepdims", 1) or not axes else y.squeeze(axes)


@operator(*_REDUCTIONS)
def reduce_attribute(node: Node, x: Tensor) -> Tensor:
    """The reduction of that name over the axes in its attribute, or over all of them."""
    return _reduce(node, x, node.ints("axes", []))


@operator("ReduceSum", since=13, host=(1,))
@operator(*sorted(set(_REDUCTIONS) - {"ReduceSum"}), since=18, host=(1,))
def reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """The reduction of that name over the given axes, or over all; or ``x`` itself when the node says so."""
    stated = [] if axes is None else numbers(axes)
    if not stated and node.int("noop_with_empty_axes", 0):
        return x
    return _reduce(node, x, stated)


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Tensor) -> Tensor:
    """Index of the first (or last) extreme element along one axis."""
    axis, keep = node.int("axis", 0), bool(node.int("keepdims", 1))
    x = x if node.op == "ArgMax" else -x
    if node.int("select_last_index", 0):
        return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=keep)
    return x.argmax(axis, keepdim=keep)


@operator("CumSum", since=11, host=(1,))
def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    """Running sum along one axis, from either end, with or without the element itself."""
    (along,) = numbers(axis)
    backward = bool(node.int("reverse", 0))
    y = x.flip(along) if backward else x
    total = y.cumsum(along).to(x.dtype)
    total = total - y if node.int("exclusive", 0) else total
    return total.flip(along) if backward else total


def _top(node: Node, x: Tensor, count: int, largest: bool) -> tuple[Tensor, Tensor]:
    """Sorted, with ties in the order of the input: torch's own topk leaves ties undefined."""
    axis = node.int("axis", -1)
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


@operator("TopK")
def top_k_attribute(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest elements along one axis, and where they are."""
    return _top(node, x, node.int("k", 1), True)


@operator("TopK", since=10, host=(1,))
def top_k(node: Node, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest or smallest elements along one axis, and where they are."""
    return _top(node, x, numbers(count)[0], bool(node.int("largest", 1)))
