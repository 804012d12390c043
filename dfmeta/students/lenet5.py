"""LeNet-5 with ReLU and max pooling: 61,706 parameters at [1, 32, 32] and 10 classes.

Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, in the form that the
data-free literature uses (Chen et al., "Data-Free Learning of Student Networks", ICCV 2019).
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, 32, 32]``; StepError for any other shape."""
    channels = _parts.image_channels("lenet5", input_shape, 32)
    return _parts.lenet(channels, (6, 16, 120), 84, classes, generator)
