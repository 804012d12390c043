"""Sums of products at every lag of a kernel, in whichever of four ways takes the least for a window and a map.

The entry of E[u u^T] for two taps and two channels is a sum over output positions. Of all pairs of taps that lie one
lag apart, the sum over pairs and output positions is a sum over the positions p of the map of w(p) x(p) x(p + lag)^T,
where w(p) counts the pairs whose first tap meets p at some output position. It is a product of one such weight for each
axis (:meth:`~.geometry.Window.lag_weight`), so that padding, strides and dilations are all in the weights.

The sum is taken term by term (:class:`Direct`), from the products of whole patches, whose blocks are added up
(:class:`Patchwise`), from those of whole rows (:mod:`.rowwise`), or from a transform (:mod:`.spectra`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.products import batches, cross, gram, tap_rows
from dfmeta.kinds.second_moment.rowwise import Rowwise
from dfmeta.kinds.second_moment.scratch import scratch
from dfmeta.kinds.second_moment.spectra import Spectra

# Units of a batch that are taken together: sums over one position of them all are added up in float32.
_UNITS = 512
# Units whose mean is the level that a transform is taken about.
_FIRST_UNITS = 8
# Products of narrow matrices, and of what was gathered first, take this many times as long as their multiplications.
_GATHERED = 8
# What it takes to copy a value, in multiplications.
_COPY = 20
# A side of a product below this takes as long as this.
_NARROW = 32


class Way(Protocol):
    """A way to the lag sums of one window over maps of one size."""

    cost: float

    def sums(self, value: Tensor) -> Tensor:
        """``[g, L, C, C]`` float64 from ``[n, c, *spatial]``."""


def lag_sums(value: Tensor, window: Window) -> Tensor:
    """Sums over pairs of taps, output positions and units of the products at each lag.

    Args:
        value: ``[n, c, *spatial]`` float32 or float64, in whose precision products are formed.
        window: of as many spatial axes.

    Returns:
        ``[g, L, C, C]`` float64, with C = c / g; lags as in :meth:`~.geometry.Window.lags`.
    """
    if len(window.kernel) == 1:
        value, window = value.unsqueeze(2), _two_axes(window)
    way = min(ways(window, tuple(value.shape[2:]), value.shape[1] // window.groups), key=lambda one: one.cost)
    blocks = [value[start : start + _UNITS] for start in range(0, max(len(value), 1), _UNITS)]
    if isinstance(way, Spectra) and value.dtype != torch.float64 and len(value):
        parts = [_about_level(way, block, window) for block in blocks]
    else:
        parts = [way.sums(block) for block in blocks]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _about_level(way: Spectra, value: Tensor, window: Window) -> Tensor:
    """The sums of a transform in float32, which would lose 3 parts in a million where a map hardly varies.

    With x = m + r, m a level of each channel, they are those of r, m times the sums of r (which are linear in r: so
    those of the sum of all units, in float64), and m m^T. Any level near the values will do.
    """
    level = value[:_FIRST_UNITS].mean((0, 2, 3))
    apart = torch.sub(value, level[:, None, None], out=scratch("apart", value.shape, value))
    found = way.sums(apart)
    total = apart.sum(0).to(torch.float64).view(window.groups, -1, *value.shape[2:])
    stack = torch.cat([torch.ones_like(total[:, :1]), total], 1).flatten(0, 1).unsqueeze(0)
    linear = lag_sums(stack, window)
    one, many = linear[:, :, :1, :1], level.to(torch.float64).view(window.groups, 1, -1, 1)
    found += many @ (linear[:, :, :1, 1:] + len(value) * one * many.mT)
    found += linear[:, :, 1:, :1] @ many.mT
    return found


def _two_axes(window: Window) -> Window:
    """A window of one axis as one of two, of which the first has size 1; the lags are the same ones."""
    return replace(
        window,
        kernel=(1, *window.kernel),
        strides=(1, *window.strides),
        dilations=(1, *window.dilations),
        before=(0, *window.before),
        after=(0, *window.after),
    )


@lru_cache(maxsize=64)
def ways(window: Window, sizes: tuple[int, ...], channels: int) -> tuple[Way, ...]:
    """All ways that are open to a window of two or three axes."""
    found: list[Way] = [Direct(window, sizes, channels), Patchwise(window, sizes, channels)]
    if len(sizes) == 2:
        plane = (sizes[0], sizes[1])
        found += [way for kind in (Spectra, Rowwise) if (way := kind(window, plane, channels)).possible]
    return tuple(found)


class Patchwise:
    """From the products of all taps of unfolded patches, whose blocks are added up by lag."""

    def __init__(self, window: Window, sizes: Sequence[int], channels: int) -> None:
        self.window, self.channels = window, channels
        self.values = window.groups * math.prod(window.output_sizes(sizes)) * channels * window.taps
        self.cost = float(self.values * (max(channels * window.taps, _NARROW) + _COPY))
        places = list(itertools.product(*map(range, window.kernel)))
        number = {lag: place for place, lag in enumerate(window.lags())}
        steps = (
            (one, other, number.get(tuple(b - a for a, b in zip(places[one], places[other], strict=True))))
            for one, other in itertools.product(range(len(places)), repeat=2)
        )
        known = [step for step in steps if step[2] is not None]
        self.first, self.second, self.numbers = (torch.tensor(column) for column in zip(*known, strict=True))

    def sums(self, value: Tensor) -> Tensor:
        """``[g, L, C, C]`` float64 from ``[n, c, *spatial]``."""
        groups, taps, channels = self.window.groups, self.window.taps, self.channels
        total = value.new_zeros((groups, taps * channels, taps * channels), dtype=torch.float64)
        for part in batches(value, self.values):
            total += gram(tap_rows(part, self.window).flatten(2))
        blocks = total.view(groups, taps, channels, taps, channels).transpose(2, 3)
        first, second, numbers = (places.to(total.device) for places in (self.first, self.second, self.numbers))
        lags = total.new_zeros(groups, self.window.lag_count, channels, channels)
        return lags.index_add_(1, numbers, blocks[:, first, second])


class Direct:
    """Term by term: at each lag, the positions that weigh anything."""

    def __init__(self, window: Window, sizes: Sequence[int], channels: int) -> None:
        self.window, self.channels = window, channels
        self.values = 2 * math.prod(sizes) * channels * window.groups
        weights = [
            [window.lag_weight(axis, size, lag[axis]) for axis, size in enumerate(sizes)] for lag in window.lags()
        ]
        strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
        self.terms = []
        for lag, axes in zip(window.lags(), weights, strict=True):
            weight = np.ones(())
            for part in axes:
                weight = np.multiply.outer(weight, part)
            first = np.flatnonzero(weight)
            offset = sum(step * d * s for step, d, s in zip(lag, window.dilations, strides, strict=True))
            arrays = first, first + offset, weight.ravel()[first]
            self.terms.append(tuple(torch.from_numpy(array) for array in arrays))
        pairs = sum(len(first) for first, _, _ in self.terms)
        self.cost = float(_GATHERED * window.groups * pairs * channels * max(channels, _NARROW // 2))

    def sums(self, value: Tensor) -> Tensor:
        """``[g, L, C, C]`` float64 from ``[n, c, *spatial]``."""
        groups, channels = self.window.groups, self.channels
        total = value.new_zeros((groups, len(self.terms), channels, channels), dtype=torch.float64)
        for part in batches(value, self.values):
            # Channels last, and then units inside positions: in one step it takes several times as long.
            turned = part.flatten(2).transpose(1, 2).contiguous()
            maps = turned.view(*turned.shape[:2], groups, channels).permute(2, 1, 0, 3).contiguous()
            for number, (first, second, weight) in enumerate(self.terms):
                if len(first):
                    left = maps.index_select(1, first.to(maps.device)) * weight.to(maps)[:, None, None]
                    right = maps.index_select(1, second.to(maps.device))
                    total[:, number] += cross(left.flatten(1, 2), right.flatten(1, 2))
        return total
