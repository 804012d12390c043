"""Wide ResNet of 40 layers, twice as wide: 2,243,546 parameters at [3, 32, 32] and 10 classes.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146, table 1, without dropout.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _residual


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 4 x 4; StepError for any other shape."""
    return _residual.wide("wrn-40-2", input_shape, 40, 2, classes, generator)
