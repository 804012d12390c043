"""AlexNet's shape for 32x32 images: what the students of this family share."""

from __future__ import annotations

import torch
from torch import nn

from dfmeta.students import _parts

# The smallest side that three 3x3 poolings of stride 2 leave something of.
LEAST = 15


def alexnet(
    name: str,
    input_shape: tuple[int, ...],
    convolutions: tuple[int, int, int, int, int],
    hidden: tuple[int, int],
    classes: int,
    generator: torch.Generator,
) -> nn.Sequential:
    """Five convolutions, 5x5 the first two and 3x3 the others, and three dense layers, with BatchNorm throughout.

    Raises:
        StepError: an input that is no image, or too small for three poolings.
    """
    channels = _parts.map_channels(name, input_shape, (LEAST, LEAST))
    height, width = (_after_pooling(size) for size in input_shape[1:])

    def layers() -> dict[str, nn.Module]:
        stack: dict[str, nn.Module] = {}
        wide_in = channels
        for index, (wide_out, kernel) in enumerate(zip(convolutions, (5, 5, 3, 3, 3), strict=True), start=1):
            stack[f"conv{index}"] = _parts.convolution(wide_in, wide_out, kernel, bias=True)
            stack[f"norm{index}"] = nn.BatchNorm2d(wide_out)
            stack[f"relu{index}"] = nn.ReLU()
            if index in (1, 2, 5):
                stack[f"pool{index}"] = nn.MaxPool2d(3, 2)
            wide_in = wide_out
        stack["flatten"] = nn.Flatten()
        wide_in *= height * width
        for index, wide_out in enumerate(hidden, start=6):
            stack[f"fc{index}"] = nn.Linear(wide_in, wide_out)
            stack[f"norm{index}"] = nn.BatchNorm1d(wide_out)
            stack[f"relu{index}"] = nn.ReLU()
            wide_in = wide_out
        stack["out"] = nn.Linear(wide_in, classes)
        return stack

    return _parts.chain(layers, generator)


def _after_pooling(size: int) -> int:
    for _ in range(3):
        size = (size - 3) // 2 + 1
    return size
