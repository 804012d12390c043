"""AlexNet for 32x32 images at half the width everywhere: 417,434 parameters at [3, 32, 32] and 10 classes.

Source: Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks", ICML 2019 (the student of its CIFAR-10
table). Left out are its local response normalisation, which has no parameters and few embedded runtimes know, and its
dropout, which would draw masks from the global generator while training.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _alexnet


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 15 x 15; StepError for any other shape."""
    return _alexnet.alexnet("alexnet-half", input_shape, (24, 64, 96, 96, 64), (256, 128), classes, generator)
