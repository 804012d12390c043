"""KegNet's networks: noise and a class to an input, and an input back to its noise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Widths of the paper's generator: two dense layers, then three deconvolutions before the last.
_DENSE = (256, 128)
_MAPS = (64, 16, 4)
_SMALLEST = 1e-5


def generator_network(item_shape: tuple[int, ...], classes: int, latent: int, generator: torch.Generator) -> nn.Module:
    """``forward(noise, labels)`` to ``[n, *item_shape]`` of mean 0 and variance 1: images each on its own.

    Args:
        item_shape: shape of one input; ``[c, h, w]`` is taken for an image.
        classes: number of classes.
        latent: length of the noise vector.
        generator: source of the initial weights.
    """
    make = _Image if len(item_shape) == 3 else _Vector
    with torch.device("meta"):
        network: nn.Module = make(item_shape, classes, latent)
    return _fresh(network, generator)


def decoder_network(
    item_shape: tuple[int, ...], latent: int, hidden: int, layers: int, generator: torch.Generator
) -> nn.Sequential:
    """A perceptron from ``[n, *item_shape]`` to the ``[n, latent]`` noise that made it."""
    sizes = [math.prod(item_shape), *[hidden] * layers]
    with torch.device("meta"):
        stack: list[nn.Module] = [nn.Flatten()]
        for wide_in, wide_out in pairwise(sizes):
            stack += [nn.Linear(wide_in, wide_out), nn.ELU(), nn.BatchNorm1d(wide_out)]
        network = nn.Sequential(*stack, nn.Linear(sizes[-1], latent))
    return _fresh(network, generator)


class _Image(nn.Module):
    """Two dense layers, then four deconvolutions: the first makes an eighth of the image, the others double it."""

    def __init__(self, item_shape: tuple[int, ...], classes: int, latent: int) -> None:
        super().__init__()
        channels, *self._size = item_shape
        self._classes = classes
        start = [-(-size // 8) for size in self._size]
        self.dense = _dense(classes + latent)
        widths = (*_MAPS, channels)
        self.maps = nn.Sequential(nn.ConvTranspose2d(_DENSE[-1], widths[0], (start[0], start[1])))
        for wide_in, wide_out in pairwise(widths):
            self.maps.extend([nn.BatchNorm2d(wide_in), nn.ReLU(), nn.ConvTranspose2d(wide_in, wide_out, 4, 2, 1)])

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """``[n, latent]`` and ``[n]`` to ``[n, c, h, w]``."""
        hidden = self.dense(_joined(noise, labels, self._classes))
        height, width = self._size
        image = torch.tanh(self.maps(hidden[:, :, None, None]))[:, :, :height, :width]
        flat = image.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + _SMALLEST).sqrt()
        return scaled.reshape(image.shape)


class _Vector(nn.Module):
    """Two dense layers and a third of the input's size; each feature of mean 0 and variance 1 over the batch."""

    def __init__(self, item_shape: tuple[int, ...], classes: int, latent: int) -> None:
        super().__init__()
        self._shape, self._classes = item_shape, classes
        size = math.prod(item_shape)
        self.dense = _dense(classes + latent)
        self.last = nn.Linear(_DENSE[-1], size)
        self.norm = nn.BatchNorm1d(size, affine=False)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """``[n, latent]`` and ``[n]`` to ``[n, *item_shape]``."""
        features: Tensor = self.norm(self.last(self.dense(_joined(noise, labels, self._classes))))
        return features.reshape(-1, *self._shape)


def _dense(size: int) -> nn.Sequential:
    first, second = _DENSE
    return nn.Sequential(
        nn.Linear(size, first),
        nn.BatchNorm1d(first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.BatchNorm1d(second),
        nn.ReLU(),
    )


def _joined(noise: Tensor, labels: Tensor, classes: int) -> Tensor:
    return torch.cat([F.one_hot(labels, classes).to(noise.dtype), noise], 1)


def _fresh(network: Network, generator: torch.Generator) -> Network:
    """Weights uniform within one over the root of the fan-in, from ``generator`` alone; BatchNorm the identity."""
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, _NORMS):
            module.reset_parameters()
        elif isinstance(module, (nn.Linear, nn.ConvTranspose2d)):
            fan_in = module.weight[0].numel() if isinstance(module, nn.Linear) else _fan_in(module)
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return network


def _fan_in(module: nn.ConvTranspose2d) -> int:
    """How many products each output is the sum of, inside the map."""
    return max(1, module.weight[:, 0].numel() // math.prod(module.stride))
