"""What the catalogue's students share: fresh weights from one generator, and the check of an image's size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from math import prod

import torch
from torch import nn

from dfmeta.errors import StepError


def chain(layers: Callable[[], dict[str, nn.Module]], generator: torch.Generator) -> nn.Sequential:
    """Run named layers one after the other, with weights drawn from ``generator`` alone.

    Weights are uniform on ``(-b, b)`` with ``b = sqrt(6 / fan_in)`` (He et al., "Delving Deep into
    Rectifiers", 2015, eq. 10, as a uniform law); biases are zero.

    Args:
        layers: makes the layers, in order; it is called with torch's own initialisation switched off, because
            that draws from the global generator.
        generator: the only source of random numbers.
    """
    with torch.device("meta"):
        network = nn.Sequential(OrderedDict(layers()))
    network.to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
    return network


def image_channels(name: str, input_shape: tuple[int, ...], side: int) -> int:
    """The channels of a ``[c, side, side]`` image.

    Raises:
        StepError: any other shape; it says which shape fits.
    """
    if len(input_shape) != 3 or input_shape[1:] != (side, side):
        raise StepError(
            f"student {name!r}",
            f"input shape {list(input_shape)}",
            f"[channels, {side}, {side}]",
            f"Pad or resize the input to {side} x {side}, or take another student.",
        )
    return input_shape[0]


def perceptron(
    input_shape: tuple[int, ...], widths: tuple[int, ...], classes: int, generator: torch.Generator
) -> nn.Sequential:
    """Flatten, then dense layers of ``widths`` with ReLU, then one of ``classes``."""
    sizes = (prod(input_shape), *widths)

    def layers() -> dict[str, nn.Module]:
        stack: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for index, (wide_in, wide_out) in enumerate(pairwise(sizes), start=1):
            stack[f"fc{index}"] = nn.Linear(wide_in, wide_out)
            stack[f"relu{index}"] = nn.ReLU()
        stack["out"] = nn.Linear(sizes[-1], classes)
        return stack

    return chain(layers, generator)


def lenet(
    channels: int, convolutions: tuple[int, int, int], hidden: int, classes: int, generator: torch.Generator
) -> nn.Sequential:
    """LeNet-5's shape for ``[c, 32, 32]``: three 5x5 convolutions without padding, two dense layers.

    The third convolution sees a 5x5 map, so it is a dense layer by another name.
    """
    first, second, third = convolutions

    def layers() -> dict[str, nn.Module]:
        return {
            "conv1": nn.Conv2d(channels, first, 5),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(first, second, 5),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "conv3": nn.Conv2d(second, third, 5),
            "relu3": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(third, hidden),
            "relu4": nn.ReLU(),
            "out": nn.Linear(hidden, classes),
        }

    return chain(layers, generator)
