"""DS-CNN of MLPerf Tiny for keyword spotting: 23,180 parameters at [1, 49, 10] and 12 classes, and 22,604 folded.

Source: Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", arXiv:1711.07128, in the size of Banbury et
al., "MLPerf Tiny Benchmark", arXiv:2106.07597, section 4. The input is one channel of 49 frames with 10 coefficients
each. An exported student has BatchNorm folded into its convolutions: then parameters and the 2,656,768
multiply-accumulates are those of the reference model. Its dropout is left out, which would draw masks from the global
generator while training, and the first convolution is padded by 5 frames on either side instead of 4 before and 5
after.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts
from dfmeta.students._separable import normed, separable

WIDTH = 64


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 10 x 4; StepError for any other shape."""
    channels = _parts.map_channels("ds-cnn", input_shape, (10, 4))

    def layers() -> dict[str, nn.Module]:
        stack = normed("first", nn.Conv2d(channels, WIDTH, (10, 4), 2, (5, 1), bias=False))
        for index in range(1, 5):
            stack |= separable(f"block{index}", WIDTH, WIDTH)
        return stack | _parts.pooled(WIDTH, classes)

    return _parts.chain(layers, generator)
