"""Lag sums from the Fourier transform of maps: the Wiener-Khinchin theorem, for windows of stride 1.

Where the stride is 1, every position of the map weighs the same but near the border. The unweighted sum is the
autocorrelation of the map continued by zeros, which needs one product of channels for each frequency, however many lags
there are; the transform is two small matrix products, and the border is put right (:mod:`.borders`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds.second_moment.borders import border
from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.products import batches
from dfmeta.kinds.second_moment.scratch import scratch

# Spectra of one batch may take this many values.
_SPECTRUM_VALUES = 1 << 22
# What the calls cost for one unit of a batch of usual size, in multiplications.
_CALLS = 200_000
# Parts of a batch whose float32 sums are added up in float32.
_PARTS = 8
# Channels that fill a register: fewer take as long.
_REGISTER = 16


class Spectra:
    """How the sums of one window over maps of one size, of two axes, come from their transform.

    Attributes:
        columns: ``[2V, H]`` float64, the transform along the first axis: cosine and negative sine of each frequency.
        rows: ``[2U, 2W]`` float64, along the second axis, of real and imaginary parts.
        cosines: ``[L, V * U]`` float64, from the symmetric part of the spectrum to the lags; holds how much of the
            autocorrelation enters each lag.
        sines: ``[L, V * U]`` float64, likewise from the antisymmetric part.
        possible: whether the window is of stride 1, and the spectrum not too large.
        cost: multiplications for one unit, and what takes as long.
    """

    def __init__(self, window: Window, sizes: tuple[int, int], channels: int) -> None:
        self.window, self.channels = window, channels
        lengths = [n + (k - 1) * d for n, k, d in zip(sizes, window.kernel, window.dilations, strict=True)]
        frequencies = (lengths[0] // 2 + 1) * lengths[1]
        wide = max(channels, _REGISTER)
        transform = (lengths[0] + 2) * (sizes[0] * sizes[1] + 2 * lengths[1] * sizes[1])
        each = transform * wide + 3 * frequencies * channels * wide + _CALLS
        self.possible = window.strides == (1, 1) and frequencies * channels**2 <= _SPECTRUM_VALUES
        self.cost = float(window.groups * each)
        if self.possible:
            self.border = border(window, sizes)
            self.cost += window.groups * self.border.products(sizes) * channels * wide
            bases = _bases(window, sizes, (lengths[0], lengths[1]))
            self.columns, self.rows, self.cosines, self.sines = (torch.from_numpy(basis) for basis in bases)

    def sums(self, value: Tensor) -> Tensor:
        """``[g, L, C, C]`` float64 from ``[n, c, H, W]``."""
        starts = range(0, value.shape[1], self.channels)
        parts = [self._of_group(value[:, start : start + self.channels]) for start in starts]
        return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)

    def _of_group(self, value: Tensor) -> Tensor:
        """``[L, C, C]`` float64 from ``[n, C, H, W]``."""
        places, channels = self.cosines.shape[1], self.channels
        shape = places, channels, channels
        few = [scratch(name, shape, value).zero_() for name in ("even", "odd")]
        sums = [scratch(f"{name} sums", shape, value, torch.float64).zero_() for name in ("even", "odd")]
        even, odd = few
        columns, rows = self.columns.to(value), self.rows.to(value)
        for number, part in enumerate(batches(value, places * 2 * channels), start=1):
            both = self._transformed(part, columns, rows).view(len(part), places, 2, channels).transpose(0, 1)
            real, imaginary = both[:, :, 0], both[:, :, 1]
            even.baddbmm_(real.mT, real)
            even.baddbmm_(imaginary.mT, imaginary)
            odd.baddbmm_(real.mT, imaginary)
            if number % _PARTS == 0:
                _move(few, sums)
        _move(few, sums)
        total = torch.empty(len(self.cosines), channels, channels, dtype=torch.float64, device=value.device)
        self._inverse(sums[0], self.cosines, total)
        turned = self._inverse(sums[1], self.sines, scratch("turned", total.shape, total))
        total.sub_(turned).add_(turned.mT)
        self.border.add(total, value)
        return total

    def _transformed(self, part: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
        """``[n * V, 2U, C]`` from ``[n, C, H, W]``: what is read together lies together in each step."""
        count, channels, height, width = part.shape
        maps = scratch("maps", (count, height, width, channels), part)
        maps.copy_(part.permute(0, 2, 3, 1))
        along = scratch("along", (count, len(columns), width * channels), part)
        torch.bmm(columns.expand(count, -1, -1), maps.view(count, height, width * channels), out=along)
        places = count * len(columns) // 2
        both = scratch("both", (places, len(rows), channels), part)
        return torch.bmm(rows.expand(places, -1, -1), along.view(places, 2 * width, channels), out=both)

    def _inverse(self, spectrum: Tensor, basis: Tensor, into: Tensor) -> Tensor:
        """Write ``[L, C, C]`` float64 from ``[V * U, C, C]``, float64 too."""
        torch.mm(basis.to(spectrum.device), spectrum.flatten(1), out=into.view(len(basis), -1))
        return into


def _move(few: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
    """Add float32 sums of a few parts to those of all, and begin again."""
    for part, total in zip(few, sums, strict=True):
        total.add_(part)
        part.zero_()


def _bases(window: Window, sizes: tuple[int, int], lengths: tuple[int, int]) -> list[np.ndarray]:
    """Transform of a map continued by zeros to ``lengths``, so that no lag reaches round, and back to the lags."""
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
    angles, shares = [], []
    for lag in window.lags():
        steps = [step * dilation for step, dilation in zip(lag, window.dilations, strict=True)]
        angles.append(np.add.outer(2 * np.pi / tall * vertical * steps[0], 2 * np.pi / wide * horizontal * steps[1]))
        shares.append(np.repeat(twice[:, None], wide, 1) * window.pairs(lag))
    angle, share = np.stack(angles), np.stack(shares)
    return [columns, rows, *((share * turn).reshape(len(angles), -1) for turn in (np.cos(angle), np.sin(angle)))]
