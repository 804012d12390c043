"""VGG-11 in its CIFAR form: 9,231,114 parameters at [3, 32, 32] and 10 classes.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556,
table 1 (A), in the form that the data-free literature uses for 32x32 images: BatchNorm after each convolution, and
one dense layer on the mean of the last map.
"""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def build(input_shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Module:
    """Build it for ``[c, h, w]`` of at least 32 x 32; StepError for any other shape."""
    channels = _parts.map_channels("vgg11", input_shape, (32, 32))

    def layers() -> dict[str, nn.Module]:
        stack: dict[str, nn.Module] = {}
        wide_in = channels
        for stage, widths in enumerate(STAGES, start=1):
            for index, width in enumerate(widths, start=1):
                stack[f"conv{stage}_{index}"] = _parts.convolution(wide_in, width, 3, bias=True)
                stack[f"norm{stage}_{index}"] = nn.BatchNorm2d(width)
                stack[f"relu{stage}_{index}"] = nn.ReLU()
                wide_in = width
            stack[f"pool{stage}"] = nn.MaxPool2d(2)
        return stack | _parts.pooled(wide_in, classes)

    return _parts.chain(layers, generator)
