"""A very small network for 8x8 images: 1,898 parameters at [1, 8, 8] and 10 classes.

Source: our own. Only what small chips run well: 3x3 convolutions with a multiple of eight channels, ReLU, 2x2
max pooling and one dense layer.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, 8, 8]``; StepError for any other shape."""
    channels = _parts.image_channels("tiny8", input_shape, 8)

    def layers() -> dict[str, nn.Module]:
        return {
            "conv1": nn.Conv2d(channels, 8, 3, padding=1),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(8, 16, 3, padding=1),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "out": nn.Linear(64, classes),
        }

    return _parts.chain(layers, generator)
