"""LeNet-5, convolutions halved, dense layers in full: 35,820 parameters at [1, 32, 32] and 10 classes.

Source: Lopes et al., "Data-Free Knowledge Distillation for Deep Neural Networks", 2017 (its LeNet-5-half).
Its 200 -> 120 dense layer is written as the 5x5 convolution that it equals.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, 32, 32]``; StepError for any other shape."""
    channels = _parts.image_channels("lenet5-half-lopes", input_shape, 32)
    return _parts.lenet(channels, (3, 8, 120), 84, classes, generator)
