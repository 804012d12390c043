"""ResNet-20 for CIFAR: 269,722 parameters at [3, 32, 32] and 10 classes.

Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2, with shortcuts of
option A. The paper does not say where the zero channels go; here they come last.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _residual


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 4 x 4; StepError for any other shape."""
    return _residual.basic("resnet20", input_shape, (16, 32, 64), (3, 3, 3), _residual.Subsampled, classes, generator)
