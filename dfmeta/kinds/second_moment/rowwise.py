"""Lag sums from whole rows of narrow maps with few channels: one product of two rows holds every lag along them.

The products of row r with row r + a, [C * W, C * W] each, are formed for all rows at once, without unfolding anything;
weights of rows and of positions along them are applied to the sums over units.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds.second_moment.geometry import Window
from dfmeta.kinds.second_moment.products import BLOCK_ROWS
from dfmeta.kinds.second_moment.scratch import scratch

# Products of all rows of one group may take this many values.
_PRODUCT_VALUES = 1 << 21


class Rowwise:
    """How the sums of one window over maps of one size, of two axes, come from products of their rows.

    Attributes:
        along: ``[W * W, B]`` float64, from products of positions along two rows to lags along them.
        possible: whether the products fit.
        cost: multiplications for one unit, and what takes as long.
    """

    def __init__(self, window: Window, sizes: tuple[int, int], channels: int) -> None:
        self.window, self.channels, self.sizes = window, channels, sizes
        height, width = sizes
        side = channels * width
        self.possible = window.groups * height * side**2 <= _PRODUCT_VALUES
        self.cost = float(window.kernel[0] * window.groups * height * side * max(side, 16))
        if not self.possible:
            return
        steps = range(1 - window.kernel[1], window.kernel[1])
        along = np.zeros((width, width, len(steps)))
        for place, step in enumerate(steps):
            weight, reach = window.lag_weight(1, width, step), step * window.dilations[1]
            first = np.flatnonzero(weight)
            along[first, first + reach, place] = weight[first]
        self.along = torch.from_numpy(along.reshape(width * width, -1))

    def sums(self, value: Tensor) -> Tensor:
        """``[g, L, C, C]`` float64 from ``[n, c, H, W]``."""
        groups, channels, (height, width) = self.window.groups, self.channels, self.sizes
        rows = value
        if channels > 1:
            rows = scratch("maps", (len(value), groups, height, channels, width), value)
            rows.copy_(value.reshape(len(value), groups, channels, height, width).transpose(2, 3))
        rows = rows.reshape(len(value), groups * height, channels * width)
        every = [self._across(rows, step) for step in range(self.window.kernel[0])]
        # [step, g, C, C, B], of which the lags that are below zero in order are left out.
        found = torch.stack(every).movedim(-1, 1).flatten(0, 1)
        return found[self.window.kernel[1] - 1 :].movedim(0, 1)

    def _across(self, rows: Tensor, step: int) -> Tensor:
        """``[g, C, C, B]`` float64: rows that many taps apart, at every lag along them."""
        groups, channels, (height, width) = self.window.groups, self.channels, self.sizes
        reach, side = step * self.window.dilations[0], channels * width
        found = rows.new_zeros((groups, side * side), dtype=torch.float64)
        if reach < height:
            products = scratch("rows", (groups * height, side, side), rows)
            whole = groups * height - reach
            # Of several groups, the last rows of one meet the first of the next; nobody looks at what that gives.
            for start in range(0, len(rows), BLOCK_ROWS):
                part = rows[start : start + BLOCK_ROWS].transpose(0, 1)
                torch.baddbmm(products[:whole], part[:whole].mT, part[reach:], beta=start > 0, out=products[:whole])
            kept = products.view(groups, height, side * side)[:, : height - reach]
            weight = torch.from_numpy(self.window.lag_weight(0, height, step)[: height - reach]).to(found)
            for group in range(groups):
                double = scratch("rows", kept[group].shape, rows, torch.float64) if rows.dtype != found.dtype else None
                found[group] = weight @ (kept[group] if double is None else double.copy_(kept[group]))
        split = found.view(groups, channels, width, channels, width).transpose(2, 3)
        return split.reshape(groups, channels, channels, width * width) @ self.along.to(found)
