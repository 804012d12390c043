"""Residual networks for small images: what the students of this family share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta.students import _parts

Shortcut = Callable[[int, int, int], nn.Module]


class Subsampled(nn.Module):
    """Every ``stride``-th pixel, with channels of zeros behind: a shortcut without parameters.

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 3.3, option A.
    """

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self._more, self._stride = wide_out - wide_in, stride

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` to ``[n, wide_out, ceil(h / stride), ceil(w / stride)]``."""
        return F.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, 0, self._more))


def projected(wide_in: int, wide_out: int, stride: int) -> nn.Module:
    """A 1x1 convolution with BatchNorm: option B of the same section."""
    return nn.Sequential(_parts.convolution(wide_in, wide_out, 1, stride), nn.BatchNorm2d(wide_out))


def mixed(wide_in: int, wide_out: int, stride: int) -> nn.Module:
    """A 1x1 convolution with a bias and no BatchNorm."""
    return _parts.convolution(wide_in, wide_out, 1, stride, bias=True)


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU after the sum (He et al., figure 5, left)."""

    def __init__(self, wide_in: int, wide_out: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _parts.convolution(wide_in, wide_out, 3, stride)
        self.norm1 = nn.BatchNorm2d(wide_out)
        self.conv2 = _parts.convolution(wide_out, wide_out, 3)
        self.norm2 = nn.BatchNorm2d(wide_out)
        same = stride == 1 and wide_in == wide_out
        self.shortcut = nn.Identity() if same else shortcut(wide_in, wide_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, wide_in, h, w]`` to ``[n, wide_out, ceil(h / stride), ceil(w / stride)]``."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class PreActivated(nn.Module):
    """BatchNorm and ReLU before each 3x3 convolution, nothing after the sum.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146, figure 1 (basic-wide), without
    dropout. Where the width changes, the 1x1 shortcut takes what the first BatchNorm and ReLU made, as in their code.
    """

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(wide_in)
        self.conv1 = _parts.convolution(wide_in, wide_out, 3, stride)
        self.norm2 = nn.BatchNorm2d(wide_out)
        self.conv2 = _parts.convolution(wide_out, wide_out, 3)
        self.shortcut = None if wide_in == wide_out else _parts.convolution(wide_in, wide_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, wide_in, h, w]`` to ``[n, wide_out, ceil(h / stride), ceil(w / stride)]``."""
        active = F.relu(self.norm1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        hidden = F.relu(self.norm2(self.conv1(active)))
        return self.conv2(hidden) + beside  # type: ignore[no-any-return]


def basic(
    name: str,
    input_shape: tuple[int, ...],
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    shortcut: Shortcut,
    classes: int,
    generator: torch.Generator,
) -> nn.Sequential:
    """A 3x3 stem, stages of :class:`Basic` that halve the map from the second on, and the mean of the last map.

    Raises:
        StepError: an input that is no image, or too small to be halved so often.
    """
    side = 2 ** (len(widths) - 1)
    channels = _parts.map_channels(name, input_shape, (side, side))

    def layers() -> dict[str, nn.Module]:
        stack: dict[str, nn.Module] = {
            "conv": _parts.convolution(channels, widths[0], 3),
            "norm": nn.BatchNorm2d(widths[0]),
            "relu": nn.ReLU(),
        }
        wide_in = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            for block in range(1, count + 1):
                stride = 2 if block == 1 and stage > 1 else 1
                stack[f"stage{stage}_{block}"] = Basic(wide_in, width, stride, shortcut)
                wide_in = width
        return stack | _parts.pooled(wide_in, classes)

    return _parts.chain(layers, generator)


def wide(
    name: str, input_shape: tuple[int, ...], depth: int, widening: int, classes: int, generator: torch.Generator
) -> nn.Sequential:
    """WRN-``depth``-``widening``: three stages of ``(depth - 4) / 6`` blocks of :class:`PreActivated`.

    Raises:
        StepError: an input that is no image of at least 4 x 4.
    """
    channels = _parts.map_channels(name, input_shape, (4, 4))

    def layers() -> dict[str, nn.Module]:
        stack: dict[str, nn.Module] = {"conv": _parts.convolution(channels, 16, 3)}
        wide_in = 16
        for stage, width in enumerate((16 * widening, 32 * widening, 64 * widening), start=1):
            for block in range(1, (depth - 4) // 6 + 1):
                stride = 2 if block == 1 and stage > 1 else 1
                stack[f"stage{stage}_{block}"] = PreActivated(wide_in, width, stride)
                wide_in = width
        return stack | {"norm": nn.BatchNorm2d(wide_in), "relu": nn.ReLU()} | _parts.pooled(wide_in, classes)

    return _parts.chain(layers, generator)
