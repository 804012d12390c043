"""Resize and Upsample: separable interpolation, each axis by its own taps and weights.

Coordinates are worked out in float32, as runtimes do, so that ties in ``nearest`` fall the same way.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfmeta.graph.ops.indexing import rearranged
from dfmeta.graph.ops.registry import Node, numbers, operator

_COORDINATES: Final = frozenset(
    {
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
    }
)


class _Axis(NamedTuple):
    axis: int
    size: int
    scale: np.float32


def _inexact(node: Node) -> str:
    """Forms whose results differ between runtimes, or that we have no exact reference for."""
    if node.int("antialias", 0):
        return "antialias"
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    if mode not in _COORDINATES:
        return f"coordinate_transformation_mode {mode}"
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy {policy}"


@operator("Upsample", "Resize", host=(1,), refuse=_inexact)
def upsample(node: Node, x: Tensor, scales: Tensor) -> Tensor:
    """``x`` scaled along every axis; coordinates are divided by the scale, ``nearest`` rounds down."""
    return _resize(node, x, _scaled(x, list(range(x.dim())), scales), "asymmetric", "floor")


@operator("Resize", since=11, host=(1, 2, 3), refuse=_inexact)
def resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """``x`` scaled along ``axes`` to the given sizes or by the given scales."""
    axes = [axis % x.dim() for axis in node.ints("axes", range(x.dim()))]
    if sizes is not None and sizes.numel():
        targets = [
            _Axis(axis, size, np.float32(size) / np.float32(x.shape[axis]))
            for axis, size in zip(axes, numbers(sizes), strict=True)
        ]
    elif scales is not None:
        targets = _scaled(x, axes, scales)
    else:
        raise node.unfit("neither scales nor sizes", "one of them")
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    return _resize(node, x, targets, coordinates, node.text("nearest_mode", "round_prefer_floor"))


def _scaled(x: Tensor, axes: list[int], scales: Tensor) -> list[_Axis]:
    factors = [np.float32(scale) for scale in scales.tolist()]
    return [_Axis(axis, math.floor(x.shape[axis] * factor), factor) for axis, factor in zip(axes, factors, strict=True)]


def _resize(node: Node, x: Tensor, targets: list[_Axis], coordinates: str, rounding: str) -> Tensor:
    mode = node.text("mode", "nearest")
    for target in targets:
        length = x.shape[target.axis]
        if target.size == length and target.scale == 1:
            continue
        places = _coordinates(coordinates, target, length)
        if mode == "nearest":
            x = rearranged(x, target.axis, np.clip(_rounded(rounding, places), 0, length - 1).tolist())
        else:
            taps, weights = _linear(places, length) if mode == "linear" else _cubic(node, places, length)
            x = _weighted(x, target.axis, taps, weights)
    return x


def _coordinates(mode: str, target: _Axis, length: int) -> np.ndarray:
    """Where each output element lies on the input's axis, in float32."""
    place = np.arange(target.size, dtype=np.float32)
    half, scale = np.float32(0.5), target.scale
    if mode == "asymmetric":
        return place / scale
    if mode == "tf_half_pixel_for_nn":
        return (place + half) / scale
    if mode == "align_corners":
        step = np.float32(length - 1) / np.float32(target.size - 1) if target.size > 1 else np.float32(0)
        return place * step
    centred = (place + half) / scale - half
    if mode == "pytorch_half_pixel" and target.size == 1:
        return np.zeros_like(place)
    if mode == "half_pixel_symmetric":
        adjustment = np.float32(target.size) / (scale * np.float32(length))
        centred = np.float32(length / 2) * (1 - adjustment) + centred
    return np.asarray(centred)


def _rounded(mode: str, places: np.ndarray) -> np.ndarray:
    if mode == "floor":
        whole = np.floor(places)
    elif mode == "ceil":
        whole = np.ceil(places)
    elif mode == "round_prefer_ceil":
        whole = np.floor(places + np.float32(0.5))
    else:
        whole = np.ceil(places - np.float32(0.5))
    return np.asarray(whole, np.int64)


def _linear(places: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Two taps and their weights [taps, outputs]."""
    inside = np.clip(places, 0, length - 1)
    low = np.floor(inside).astype(np.int64)
    part = inside - low
    return np.stack([low, np.minimum(low + 1, length - 1)]), np.stack([1 - part, part])


def _cubic(node: Node, places: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Four taps and their weights [taps, outputs] (Keys, 1981), with the node's coefficient."""
    a = node.float("cubic_coeff_a", -0.75)
    low = np.floor(places)
    part = (places - low).astype(np.float64)
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (part, 1 - part)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (part + 1, 2 - part)]
    taps = np.stack([low - 1, low, low + 1, low + 2]).astype(np.int64)
    weights = np.stack([far[0], near[0], near[1], far[1]])
    if node.int("exclude_outside", 0):
        weights = np.where((taps >= 0) & (taps < length), weights, 0.0)
        weights = weights / weights.sum(axis=0)
    return np.clip(taps, 0, length - 1), weights


def _weighted(x: Tensor, axis: int, taps: np.ndarray, weights: np.ndarray) -> Tensor:
    shape = [1] * x.dim()
    shape[axis] = -1
    factors = torch.from_numpy(np.ascontiguousarray(weights)).to(x.device, x.dtype)
    parts = [
        rearranged(x, axis, tap.tolist()) * factor.reshape(shape) for tap, factor in zip(taps, factors, strict=True)
    ]
    return torch.stack(parts).sum(0)
