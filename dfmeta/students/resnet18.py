"""ResNet-18 in its CIFAR form: 11,173,962 parameters at [3, 32, 32] and 10 classes.

Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1, in the form that the
data-free literature uses for 32x32 images (Chen et al., "Data-Free Learning of Student Networks", ICCV 2019): a 3x3
stem without pooling, so that the map is halved three times only.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _residual


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 8 x 8; StepError for any other shape."""
    return _residual.basic(
        "resnet18", input_shape, (64, 128, 256, 512), (2, 2, 2, 2), _residual.projected, classes, generator
    )
