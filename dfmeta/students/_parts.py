"""What the catalogue's students share: fresh weights from one generator, and the check of an input's shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import TypeVar

import torch
from torch import nn

from dfmeta.errors import StepError

Network = TypeVar("Network", bound=nn.Module)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fresh(make: Callable[[], Network], generator: torch.Generator) -> Network:
    """A network with weights drawn from ``generator`` alone.

    Weights are uniform on ``(-b, b)`` with ``b = sqrt(6 / fan_in)`` (He et al., "Delving Deep into
    Rectifiers", 2015, eq. 10, as a uniform law); biases are zero. BatchNorm starts as the identity: scale 1, shift 0,
    mean 0, variance 1.

    Args:
        make: makes the network; it is called with torch's own initialisation switched off, because that draws from
            the global generator.
        generator: the only source of random numbers.
    """
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, _NORMS):
            module.reset_parameters()
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def chain(layers: Callable[[], dict[str, nn.Module]], generator: torch.Generator) -> nn.Sequential:
    """Run named layers one after the other, with the weights of :func:`fresh`.

    Args:
        layers: makes the layers, in order.
        generator: the only source of random numbers.
    """
    return fresh(lambda: nn.Sequential(OrderedDict(layers())), generator)


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


def map_channels(name: str, input_shape: tuple[int, ...], least: tuple[int, int]) -> int:
    """The channels of a ``[c, h, w]`` map that is at least ``least`` high and wide.

    Raises:
        StepError: any other shape; it says which shapes fit.
    """
    height, width = least
    if len(input_shape) != 3 or input_shape[1] < height or input_shape[2] < width:
        raise StepError(
            f"student {name!r}",
            f"input shape {list(input_shape)}",
            f"[channels, {height} or more, {width} or more]",
            "Pad or resize the input, or take another student.",
        )
    return input_shape[0]


def convolution(
    wide_in: int, wide_out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A square convolution that keeps the size at stride 1, without a bias: BatchNorm after it has its own."""
    return nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, groups=groups, bias=bias)


def pooled(widths: int, classes: int) -> dict[str, nn.Module]:
    """The head of a network for maps of any size: their mean, then one dense layer."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "out": nn.Linear(widths, classes)}


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
