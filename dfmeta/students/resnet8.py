"""ResNet-8 of MLPerf Tiny: 77,946 parameters at [3, 32, 32] and 10 classes, and 77,706 once BatchNorm is folded.

Source: Banbury et al., "MLPerf Tiny Benchmark", arXiv:2106.07597, section 4 (image classification). An exported
student has BatchNorm folded into its convolutions, which turns 480 scales and shifts into 240 biases: then parameters
and the 12,501,632 multiply-accumulates are those of the reference model.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _residual


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 4 x 4; StepError for any other shape."""
    return _residual.basic("resnet8", input_shape, (16, 32, 64), (1, 1, 1), _residual.mixed, classes, generator)
