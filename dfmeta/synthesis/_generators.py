"""The generator network: noise, label and starting point in, a correction of the starting point out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Generator(nn.Module):
    """A convolutional decoder for ``[c, h, w]`` inputs, a perceptron for all others.

    The last layer starts at zero, so that the first output is the starting point itself.

    Args:
        item_shape: shape of one input.
        classes: number of classes.
        latent: length of the noise vector.
        width: channels of the last stage.
        generator: source of the initial weights.
    """

    def __init__(
        self, item_shape: tuple[int, ...], classes: int, latent: int, width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        image = len(item_shape) == 3 and min(item_shape[1:]) >= 4
        make = _Decoder if image else _Perceptron
        # Modules draw from torch's global state when they are made: that is put back, and every draw replaced.
        with torch.random.fork_rng(devices=[]):
            self._label = nn.Embedding(classes, latent)
            self._body = make(item_shape, 2 * latent, width)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    bound = math.sqrt(3 / max(1, parameter[0].numel()))
                    parameter.uniform_(-bound, bound, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()
            self._label.weight.normal_(generator=generator)
            for parameter in self._body.last.parameters():
                parameter.zero_()

    def forward(self, noise: Tensor, labels: Tensor, base: Tensor) -> Tensor:
        """``[n, *item_shape]`` correction, in units of the input's deviation."""
        correction: Tensor = self._body(torch.cat([noise, self._label(labels)], 1), base)
        return correction


class _Decoder(nn.Module):
    """Two doublings from a quarter of the image's size; the starting point joins at half and at full size."""

    def __init__(self, item_shape: tuple[int, ...], latent: int, width: int) -> None:
        super().__init__()
        channels, height, width_px = item_shape
        self._full = (height, width_px)
        self._half = ((height + 1) // 2, (width_px + 1) // 2)
        self._quarter = ((self._half[0] + 1) // 2, (self._half[1] + 1) // 2)
        self._deep = 2 * width
        self.seed = nn.Linear(latent, self._deep * self._quarter[0] * self._quarter[1])
        self.coarse = nn.Conv2d(self._deep, self._deep, 3, padding=1)
        self.coarse_norm = nn.BatchNorm2d(self._deep)
        self.fine = nn.Conv2d(self._deep + channels, width, 3, padding=1)
        self.fine_norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width + channels, channels, 3, padding=1)

    def forward(self, latent: Tensor, base: Tensor) -> Tensor:
        hidden = self.seed(latent).reshape(len(latent), self._deep, *self._quarter)
        hidden = F.leaky_relu(self.coarse_norm(self.coarse(hidden)), 0.2)
        hidden = F.interpolate(hidden, size=self._half)
        small = F.adaptive_avg_pool2d(base, self._half)
        hidden = F.leaky_relu(self.fine_norm(self.fine(torch.cat([hidden, small], 1))), 0.2)
        hidden = F.interpolate(hidden, size=self._full)
        correction: Tensor = self.last(torch.cat([hidden, base], 1))
        return correction


class _Perceptron(nn.Module):
    def __init__(self, item_shape: tuple[int, ...], latent: int, width: int) -> None:
        super().__init__()
        size, hidden = math.prod(item_shape), 8 * width
        self._shape = item_shape
        self.first = nn.Linear(latent + size, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, size)

    def forward(self, latent: Tensor, base: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.norm(self.first(torch.cat([latent, base.flatten(1)], 1))), 0.2)
        correction: Tensor = self.last(F.leaky_relu(self.second(hidden), 0.2))
        return correction.reshape(-1, *self._shape)
