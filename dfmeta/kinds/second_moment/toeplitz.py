"""Sums of products at every lag of a kernel, without unfolding a patch.

The entry of E[u u^T] for two taps and two channels is a sum over output positions. Of all pairs of taps that lie one
lag apart, the sum over pairs and output positions is a sum over the positions p of the map of w(p) x(p) x(p + lag)^T,
where w(p) counts the pairs whose first tap meets p at some output position. It is a product of one such weight for each
axis (:meth:`~.geometry.Window.lag_weight`), so that padding, strides and dilations are all in the weights.

Where the stride is 1, w is the same everywhere but near the border. The unweighted sum, the autocorrelation of the map
continued by zeros, is then taken from its Fourier transform (the Wiener-Khinchin theorem; the transform is two small
matrix products), and only the border is put right term by term. That takes a fraction of the multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Lag, Window
from dfmeta.kinds.second_moment.products import BLOCK_ROWS, batches, cross

# Spectra of one batch may take this many values.
_SPECTRUM_VALUES = 1 << 26


@dataclass(frozen=True, slots=True)
class Term:
    """A weighted sum over some positions, at one lag.

    Attributes:
        first: ``[m]`` int64, positions of the flattened map.
        second: ``[m]`` int64, the positions one lag further.
        weight: ``[m]`` float64.
        everywhere: whether ``first`` is the whole map in order; then ``second`` is too.
    """

    first: Tensor
    second: Tensor
    weight: Tensor
    everywhere: bool


@dataclass(frozen=True, slots=True)
class Spectrum:
    """How autocorrelations are taken from a transform, over two axes (the first of size 1 for a map of one axis).

    Attributes:
        columns: ``[2V, H]`` float64, the transform along the first axis: cosine and negative sine of each frequency.
        rows: ``[2U, 2W]`` float64, along the second axis, of real and imaginary parts.
        cosines: ``[L, V * U]`` float64, from the symmetric part of the spectrum to the lags; holds how much of the
            autocorrelation enters each lag.
        sines: ``[L, V * U]`` float64, likewise from the antisymmetric part.
    """

    columns: Tensor
    rows: Tensor
    cosines: Tensor
    sines: Tensor


@dataclass(frozen=True, slots=True)
class Route:
    """How the sums of one window over maps of one size are formed: term by term, after a transform if that is less."""

    spectrum: Spectrum | None
    terms: tuple[Term, ...]
    values: int


def lag_sums(value: Tensor, window: Window) -> Tensor:
    """Sums over pairs of taps, output positions and units of the products at each lag.

    Args:
        value: ``[n, c, *spatial]`` float32 or float64, in whose precision products are formed.
        window: of as many spatial axes.

    Returns:
        ``[g, L, C, C]`` float64, with C = c / g; lags as in :meth:`~.geometry.Window.lags`.
    """
    groups, channels = window.groups, value.shape[1] // window.groups
    route = _route(window, tuple(value.shape[2:]), channels)
    total = value.new_zeros((groups, window.lag_count, channels, channels), dtype=torch.float64)
    parts = None if route.spectrum is None else _Parts(route.spectrum, groups, channels, value)
    for start in range(0, len(value), BLOCK_ROWS):
        for part in batches(value[start : start + BLOCK_ROWS], value.shape[1] * route.values):
            maps = _positions_first(part, groups)
            if parts is not None:
                parts.add(maps, value.shape[2:])
            for number, term in enumerate(route.terms):
                if len(term.first):
                    total[:, number] += _weighted(maps, term)
        if parts is not None:
            total += parts.taken()
    return total


def _positions_first(part: Tensor, groups: int) -> Tensor:
    """``[g, positions, n, C]`` from ``[n, c, *spatial]``: what lies at one position is then one block of memory."""
    count, channels = part.shape[:2]
    # A transposition of two axes, which torch does several times faster than a permutation of four.
    turned = part.reshape(count * channels, -1).T.contiguous()
    return turned.reshape(-1, count, groups, channels // groups).permute(2, 0, 1, 3).contiguous()


def _weighted(maps: Tensor, term: Term) -> Tensor:
    """``[g, C, C]`` float64 from ``[g, positions, n, C]``."""
    first, second = maps, maps
    if not term.everywhere:
        first, second = (
            maps.index_select(1, term.first.to(maps.device)),
            maps.index_select(1, term.second.to(maps.device)),
        )
    if not (term.weight == 1).all():
        first = first * term.weight.to(maps)[:, None, None]
    return cross(first.flatten(1, 2), second.flatten(1, 2))


class _Parts:
    """Real and imaginary parts of the cross-spectra of all channels, summed over units."""

    def __init__(self, spectrum: Spectrum, groups: int, channels: int, like: Tensor) -> None:
        self.columns, self.rows = spectrum.columns.to(like), spectrum.rows.to(like)
        self.cosines, self.sines = (basis.to(like.device) for basis in (spectrum.cosines, spectrum.sines))
        self.groups, self.channels = groups, channels
        places = groups * spectrum.cosines.shape[1]
        self.even = like.new_zeros(places, channels, channels)
        self.odd = like.new_zeros(places, channels, channels)

    def add(self, maps: Tensor, sizes: torch.Size) -> None:
        """Take in ``[g, positions, n, C]``."""
        units, width = maps.shape[2], sizes[-1]
        tall = maps.reshape(self.groups, -1, width * units * self.channels)
        along = (self.columns @ tall).reshape(-1, 2 * width, units * self.channels)
        both = (self.rows @ along).reshape(len(self.even), 2 * units, self.channels)
        self.even.baddbmm_(both.mT, both)
        self.odd.baddbmm_(both[:, :units].mT, both[:, units:])

    def taken(self) -> Tensor:
        """``[g, L, C, C]`` float64, of what has been added since this was last asked for."""
        even, odd = (part.double().reshape(self.groups, -1, self.channels**2) for part in (self.even, self.odd))
        found = (self.cosines @ even).reshape(self.groups, -1, self.channels, self.channels)
        turned = (self.sines @ odd).reshape(found.shape)
        self.even.zero_()
        self.odd.zero_()
        lags: Tensor = found - (turned - turned.mT)
        return lags


@lru_cache(maxsize=64)
def _route(window: Window, sizes: tuple[int, ...], channels: int) -> Route:
    """The cheaper of the two ways, by the multiplications for one channel of one unit."""
    terms = tuple(_term(window, sizes, lag, 0.0) for lag in window.lags())
    plain = Route(None, terms, 2 * math.prod(sizes))
    if len(sizes) > 2 or any(stride != 1 for stride in window.strides):
        return plain
    shorter = transformed(window, sizes)
    spectrum = shorter.spectrum
    if spectrum is None or window.groups * spectrum.cosines.shape[1] * channels**2 > _SPECTRUM_VALUES:
        return plain
    frequencies = spectrum.cosines.shape[1]
    cost = spectrum.columns.numel() * sizes[-1] + len(spectrum.columns) // 2 * spectrum.rows.numel()
    cost += (3 * frequencies + sum(len(term.first) for term in shorter.terms)) * channels
    return shorter if cost < sum(len(term.first) for term in terms) * channels else plain


def transformed(window: Window, sizes: tuple[int, ...]) -> Route:
    """The way by the transform, for strides of 1 and one or two axes."""
    lengths = [n + (k - 1) * d for n, k, d in zip(sizes, window.kernel, window.dilations, strict=True)]
    (height, width), (tall, wide) = ([1, *sizes][-2:], [1, *lengths][-2:])
    terms = tuple(_term(window, sizes, lag, float(window.pairs(lag))) for lag in window.lags())
    spectrum = _spectrum(window, (height, width), (tall, wide))
    return Route(spectrum, terms, 2 * (tall // 2 + 1) * wide)


def _term(window: Window, sizes: tuple[int, ...], lag: Lag, spectral: float) -> Term:
    """What is left to add at one lag, where every pair inside the map is already there ``spectral`` times."""
    weight, inside = np.ones(()), np.ones((), bool)
    for axis, (size, step) in enumerate(zip(sizes, lag, strict=True)):
        met = np.arange(size) + step * window.dilations[axis]
        weight = np.multiply.outer(weight, window.lag_weight(axis, size, step))
        inside = np.logical_and.outer(inside, (met >= 0) & (met < size))
    left = np.where(inside, weight - spectral, 0.0).ravel()
    first = np.flatnonzero(left)
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    offset = sum(step * dilation * s for step, dilation, s in zip(lag, window.dilations, strides, strict=True))
    everywhere = len(first) == left.size and not any(lag)
    second, weights = (torch.from_numpy(array) for array in (first + offset, left[first]))
    return Term(torch.from_numpy(first), second, weights, everywhere)


def _spectrum(window: Window, sizes: tuple[int, int], lengths: tuple[int, int]) -> Spectrum:
    """The transform of a map continued by zeros to ``lengths``, so that no lag reaches round."""
    (height, width), (tall, wide) = sizes, lengths
    vertical, horizontal = np.arange(tall // 2 + 1), np.arange(wide)
    down = 2 * np.pi / tall * np.multiply.outer(vertical, np.arange(height))
    across = 2 * np.pi / wide * np.multiply.outer(horizontal, np.arange(width))
    columns = np.stack([np.cos(down), -np.sin(down)], 1).reshape(-1, height)
    real = np.concatenate([np.cos(across), np.sin(across)], 1)
    imaginary = np.concatenate([-np.sin(across), np.cos(across)], 1)
    rows = np.stack([real, imaginary], 1).reshape(-1, 2 * width)
    # A real map's spectrum is symmetric: all frequencies but 0 and the middle stand for two.
    twice = np.where((vertical == 0) | (2 * vertical == tall), 1.0, 2.0) / (tall * wide)
    dilations = [1, *window.dilations][-2:]
    angles, shares = [], []
    for lag in window.lags():
        steps = [step * dilation for step, dilation in zip([0, *lag][-2:], dilations, strict=True)]
        angles.append(np.add.outer(2 * np.pi / tall * vertical * steps[0], 2 * np.pi / wide * horizontal * steps[1]))
        shares.append(twice[:, None] * window.pairs(lag))
    angle, share = np.stack(angles), np.stack(shares)
    inverse = ((share * turn).reshape(len(angles), -1) for turn in (np.cos(angle), np.sin(angle)))
    return Spectrum(*(torch.from_numpy(array) for array in (columns, rows, *inverse)))
