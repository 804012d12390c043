"""Cutting, joining and looking up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from dfmeta.graph.ops.registry import Node, numbers, operator

_REDUCE: Final = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


@operator("Concat")
def concat(node: Node, *parts: Tensor) -> Tensor:
    """The inputs joined along one axis."""
    return torch.cat(parts, node.int("axis", 0))


@operator("Split")
def split_attribute(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    """``x`` cut along one axis into the sizes of the attribute, or into equal parts."""
    return _split(node, x, node.ints("split", []))


@operator("Split", since=13, host=(1,))
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """``x`` cut along one axis into the given sizes, or into equal parts of which the last may be smaller."""
    return _split(node, x, [] if sizes is None else numbers(sizes))


def _split(node: Node, x: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    axis = node.int("axis", 0)
    if not sizes:
        count = node.int("num_outputs", len(node.outputs))
        whole = math.ceil(x.shape[axis] / count)
        sizes = [min(whole, x.shape[axis] - place * whole) for place in range(count)]
    return torch.split(x, sizes, axis)


@operator("Slice")
def slice_attribute(node: Node, x: Tensor) -> Tensor:
    """``x`` from ``starts`` to ``ends`` along ``axes``."""
    starts, ends = node.ints("starts", []), node.ints("ends", [])
    axes = node.ints("axes", range(len(starts)))
    return _slice(x, starts, ends, axes, [1] * len(starts))


@operator("Slice", since=10, host=(1, 2, 3, 4))
def slice_input(
    node: Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """``x`` from ``starts`` to ``ends`` along ``axes`` in ``steps``, which may be negative."""
    first = numbers(starts)
    along = list(range(len(first))) if axes is None else numbers(axes)
    return _slice(x, first, numbers(ends), along, [1] * len(first) if steps is None else numbers(steps))


def _slice(x: Tensor, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Tensor:
    cuts = [slice(None)] * x.dim()
    flips = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        taken = range(*slice(start, end, step).indices(size))
        if step < 0 and len(taken):
            flips.append(axis)
            taken = taken[::-1]  # torch has no negative steps: take them forwards, then flip
        cuts[axis] = slice(taken.start, taken.stop, taken.step) if len(taken) else slice(0, 0)
    y = x[tuple(cuts)]
    return y.flip(flips) if flips else y


def _wrapped(index: Tensor, size: int) -> Tensor:
    """Indices that count from the end made to count from the start."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


@operator("Gather")
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of ``x`` along one axis, one for each index."""
    axis = node.int("axis", 0) % x.dim()
    flat = _wrapped(indices, x.shape[axis]).reshape(-1)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, flat).reshape(shape)


@operator("GatherElements", since=11)
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """One element of ``x`` along one axis for each index."""
    axis = node.int("axis", 0)
    return torch.gather(x, axis, _wrapped(indices, x.shape[axis]))


@operator("GatherND", since=11)
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of ``x`` at coordinates, behind ``batch_dims`` axes that both share."""
    shared = node.int("batch_dims", 0)
    places: list[Tensor] = []
    rank = indices.dim() - 1
    for axis in range(shared):
        shape = [1] * rank
        shape[axis] = x.shape[axis]
        places.append(torch.arange(x.shape[axis], device=x.device).reshape(shape))
    places += [_wrapped(place, x.shape[shared + axis]) for axis, place in enumerate(indices.unbind(-1))]
    return x[tuple(places)]


@operator("Scatter")
@operator("ScatterElements", since=11)
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy of ``x`` with elements along one axis replaced by, or reduced with, updates."""
    axis = node.int("axis", 0)
    return _scatter(node, x, axis, _wrapped(indices, x.shape[axis]), updates)


@operator("ScatterND", since=11)
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy of ``x`` with slices at coordinates replaced by, or reduced with, updates."""
    depth = indices.shape[-1]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis, place in enumerate(indices.unbind(-1)):
        flat = flat * x.shape[axis] + _wrapped(place, x.shape[axis])
    rows = x.reshape(math.prod(x.shape[:depth]), -1)
    new = updates.reshape(flat.numel(), rows.shape[1])
    y = _scatter(node, rows, 0, flat.reshape(-1, 1).expand_as(new), new)
    return y.reshape(x.shape)


def _scatter(node: Node, x: Tensor, axis: int, index: Tensor, updates: Tensor) -> Tensor:
    reduction = node.text("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCE[reduction], include_self=True)


@operator("Expand", host=(1,))
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """``x`` broadcast against a shape, in both directions."""
    sizes = np.broadcast_shapes(tuple(x.shape), tuple(numbers(shape)))
    return x.broadcast_to(sizes)


@operator("Tile", host=(1,))
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    """``x`` repeated along each axis."""
    return x.repeat(numbers(repeats))


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Channels of [n, c, h, w] moved into blocks of the plane."""
    n, c, h, w = x.shape
    b = node.int("blocksize", 1)
    if node.text("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // (b * b), h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Blocks of the plane of [n, c, h, w] moved into channels."""
    n, c, h, w = x.shape
    b = node.int("blocksize", 1)
    y = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * b * b, h // b, w // b)


def rearranged(x: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """``x`` with the slices at ``places`` along ``axis``, repeats allowed."""
    return x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
