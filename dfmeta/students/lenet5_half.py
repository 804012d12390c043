"""LeNet-5 with half the width everywhere: 15,738 parameters at [1, 32, 32] and 10 classes.

Source: Chen et al., "Data-Free Learning of Student Networks", ICCV 2019 (the student of its MNIST table).
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, 32, 32]``; StepError for any other shape."""
    channels = _parts.image_channels("lenet5-half", input_shape, 32)
    return _parts.lenet(channels, (3, 8, 60), 42, classes, generator)
