"""MobileNet v1 at a quarter of its width, as in MLPerf Tiny: 213,586 parameters at [3, 96, 96], 2 classes.

Source: Howard et al., "MobileNets", arXiv:1704.04861, table 1, with width multiplier 0.25; the visual wake words
model of Banbury et al., "MLPerf Tiny Benchmark", arXiv:2106.07597, section 4. An exported student has BatchNorm
folded into its convolutions: then its 210,850 parameters and 7,489,664 multiply-accumulates are those of the
reference model.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts
from dfmeta.students._separable import normed, separable

# Width and stride of each block.
BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 32 x 32; StepError for any other shape."""
    channels = _parts.map_channels("mobilenet-v1-025", input_shape, (32, 32))

    def layers() -> dict[str, nn.Module]:
        stack = normed("first", _parts.convolution(channels, 8, 3, 2))
        wide_in = 8
        for index, (width, stride) in enumerate(BLOCKS, start=1):
            stack |= separable(f"block{index}", wide_in, width, stride)
            wide_in = width
        return stack | _parts.pooled(wide_in, classes)

    return _parts.chain(layers, generator)
