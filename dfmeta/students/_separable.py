"""Depthwise separable networks for small inputs: what the students of this family share."""

from __future__ import annotations

from torch import nn

from dfmeta.students import _parts


def normed(name: str, convolution: nn.Conv2d) -> dict[str, nn.Module]:
    """A convolution with BatchNorm and ReLU."""
    return {
        f"{name}_conv": convolution,
        f"{name}_norm": nn.BatchNorm2d(convolution.out_channels),
        f"{name}_relu": nn.ReLU(),
    }


def separable(name: str, wide_in: int, wide_out: int, stride: int = 1) -> dict[str, nn.Module]:
    """A 3x3 convolution of each channel alone, then a 1x1 over channels, each with BatchNorm and ReLU.

    Source: Howard et al., "MobileNets", arXiv:1704.04861, section 3.1 and figure 3.
    """
    alone = _parts.convolution(wide_in, wide_in, 3, stride, groups=wide_in)
    return normed(f"{name}_depth", alone) | normed(f"{name}_point", _parts.convolution(wide_in, wide_out, 1))
