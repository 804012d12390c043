"""Two hidden layers of 800 ReLUs: 1,276,810 parameters at 784 inputs and 10 classes.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 3 (the student of
its MNIST experiment), without dropout.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for an input of any shape, which is flattened."""
    return _parts.perceptron(input_shape, (800, 800), classes, generator)
