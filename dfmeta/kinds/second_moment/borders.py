"""What the border of a map adds to lag sums that were taken as if all positions weighed the same.

The weight of a position is a product over axes, v(r) h(c), and that of the inside is p q, where p and q count pairs of
taps. What is left, v h - p q, is (v - p) q, in which whole rows of the map stand, and p (h - q), in which whole columns
stand, and (v - p) (h - q), of few positions. At padding that keeps the size, these are the outermost lines at lag 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.products import cross
from dfmeta.kinds.second_moment.scratch import scratch


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a map that meet other lines ``step`` taps further; weights by line.

    Attributes:
        axis: 0 for rows of the map, 1 for columns.
        first: ``[m]`` int64, which lines.
        second: ``[m]`` int64, those that they meet.
        weight: ``[m]`` float64.
        shifts: distances of positions along the lines, and for each the number of the lag and how much enters it.
    """

    axis: int
    first: Tensor
    second: Tensor
    weight: Tensor
    shifts: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True)
class Corners:
    """Single positions at one lag: ``[m]`` int64 places in the flattened map, ``[m]`` float64 weights."""

    number: int
    first: Tensor
    second: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Border:
    """All that is left of one window of stride 1 over maps of one size with two axes."""

    lines: tuple[Lines, ...]
    corners: tuple[Corners, ...]

    def products(self, sizes: tuple[int, int]) -> int:
        """Pairs of positions of one unit that meet here."""
        along = sum(len(lines.first) * sizes[1 - lines.axis] * len(lines.shifts) for lines in self.lines)
        return along + sum(len(corners.first) for corners in self.corners)

    def add(self, total: Tensor, value: Tensor) -> None:
        """Add to ``[L, C, C]`` float64 what ``[n, C, H, W]`` leaves."""
        for lines in self.lines:
            for (_, number, share), found in zip(lines.shifts, _along(lines, value), strict=True):
                total[number] += share * found
        for corners in self.corners:
            sides = [
                value.flatten(2).index_select(2, places.to(value.device)).permute(2, 0, 1)
                for places in (corners.first, corners.second)
            ]
            total[corners.number] += (corners.weight.to(total)[:, None, None] * cross(*sides)).sum(0)


def border(window: Window, sizes: tuple[int, int]) -> Border:
    """See the module."""
    left = [{step: _left(window, axis, sizes[axis], step) for step in _steps(window, axis)} for axis in (0, 1)]
    lines = [entry for axis in (0, 1) for step in left[axis] for entry in _lines(window, axis, step, left[axis][step])]
    corners = []
    for number, (down, across) in enumerate(window.lags()):
        weight = np.multiply.outer(left[0][down], left[1][across]).ravel()
        first = np.flatnonzero(weight)
        if len(first):
            offset = down * window.dilations[0] * sizes[1] + across * window.dilations[1]
            corners.append(Corners(number, *(torch.from_numpy(a) for a in (first, first + offset, weight[first]))))
    return Border(tuple(lines), tuple(corners))


def _steps(window: Window, axis: int) -> range:
    return range(1 - window.kernel[axis], window.kernel[axis])


def _left(window: Window, axis: int, size: int, step: int) -> np.ndarray:
    """``[size]``: weight less that of the inside, on one axis."""
    met = np.arange(size) + step * window.dilations[axis]
    inside = (met >= 0) & (met < size)
    pairs = window.kernel[axis] - abs(step)
    left: np.ndarray = window.lag_weight(axis, size, step) - np.where(inside, pairs, 0)
    return left


def _lines(window: Window, axis: int, step: int, left: np.ndarray) -> Iterator[Lines]:
    """The lines of one axis that are ``step`` taps apart, with all lags that take them."""
    first = np.flatnonzero(left)
    other, shifts = 1 - axis, []
    for number, lag in enumerate(window.lags()):
        if lag[axis] == step:
            pairs = float(window.kernel[other] - abs(lag[other]))
            shifts.append((lag[other] * window.dilations[other], number, pairs))
    if len(first) and shifts:
        second, weight = first + step * window.dilations[axis], left[first]
        lines, met, weights = (torch.from_numpy(array) for array in (first, second, weight))
        yield Lines(axis, lines, met, weights, tuple(shifts))


def _along(lines: Lines, value: Tensor) -> list[Tensor]:
    """``[C, C]`` float64 for each shift."""
    reach = max(abs(shift) for shift, _, _ in lines.shifts)
    first = _chosen("first lines", value, lines.axis, lines.first, reach)
    second = first
    if not torch.equal(lines.first, lines.second):
        second = _chosen("second lines", value, lines.axis, lines.second, reach)
    # One weight for all can wait for the sums.
    common = float(lines.weight[0])
    if not bool((lines.weight == common).all()):
        first, common = first * lines.weight.to(value)[:, None, None], 1.0
    first, second = first.flatten(0, 2), second.flatten(0, 2)
    found = []
    for shift, _, _ in lines.shifts:
        start, stop = max(-shift, 0), len(first) - max(shift, 0)
        found.append(common * cross(first[start:stop], second[start + shift : stop + shift]))
    return found


def _chosen(purpose: str, value: Tensor, axis: int, places: Tensor, reach: int) -> Tensor:
    """``[n, lines, positions + reach, C]``; the zeros take what would reach from one line into the next."""
    positions = value.shape[3 - axis]
    chosen = scratch(purpose, (len(value), len(places), positions + reach, value.shape[1]), value)
    chosen[:, :, positions:] = 0
    for number, place in enumerate(places.tolist()):
        chosen[:, number, :positions] = value.select(2 + axis, place).transpose(1, 2)
    return chosen
