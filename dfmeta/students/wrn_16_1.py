"""Wide ResNet of 16 layers at single width: 175,066 parameters at [3, 32, 32] and 10 classes.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146, table 1, without dropout.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _residual


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 4 x 4; StepError for any other shape."""
    return _residual.wide("wrn-16-1", input_shape, 16, 1, classes, generator)
