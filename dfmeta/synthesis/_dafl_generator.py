"""The generator of DAFL, which DFAD took over: noise in, inputs out, normalised by their own batch.

Chen et al., "Data-Free Learning of Student Networks", arXiv:1904.01186, sec. 4.1, and its published code: a linear
layer to 128 maps of a quarter of the size, two doublings each followed by a 3 x 3 convolution with batch
normalisation and LeakyReLU (0.2), a last convolution, tanh, and a batch normalisation without weights. What comes out
has mean 0 and variance 1 in each channel.

What we add, because a model's input need not be a normalised square image:

* sizes that 4 does not divide are rounded up at a quarter and at half of the size;
* inputs that are no images get a perceptron of two hidden layers, with the same ending;
* the output is scaled by :meth:`dfmeta.synthesis.Task.input_scale` and clipped to the range that the preprocessing
  allows. The published teachers take inputs normalised to mean 0 and variance 1, so there the scaling is built in; the
  clipping is ours, since everything that a method makes must be an input that there can be. Gradients pass the clipping
  as if it were not there. Nothing can drift away behind it: the last normalisation fixes mean and variance of what is
  clipped;
* all normalisations use the batch's own statistics at all times. In the published code the student never sees anything
  else, as it trains on what the generator makes in training mode.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta.errors import DataError
from dfmeta.synthesis._contract import Task

# A batch is normalised by its own statistics: fewer than this are made together with others, which are dropped.
FEWEST = 64


class PaperGenerator(nn.Module):
    """Noise to ``[n, *item_shape]`` of mean 0 and variance 1 in each channel of the batch.

    Args:
        item_shape: shape of one input.
        latent: length of the noise vector.
        classes: number of classes whose one-hot code is appended to the noise; 0 for a generator without labels.
        width: maps of the first two stages (128 in both papers); the last has half as many. Of a perceptron, whose two
            hidden layers have twice and four times as many units.
        epsilon: of the two inner normalisations (0.8 in DAFL's code, 1e-5 in DFAD's).
        generator: source of the initial weights, uniform within ``1 / sqrt(fan in)`` as torch's own.
    """

    def __init__(
        self,
        item_shape: tuple[int, ...],
        latent: int,
        classes: int,
        width: int,
        epsilon: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._item_shape, self._classes = item_shape, classes
        image = len(item_shape) == 3 and min(item_shape[1:]) >= 4
        make = _Decoder if image else _Perceptron
        # Modules draw from torch's global state when they are made: that is put back, and every draw replaced.
        with torch.random.fork_rng(devices=[]):
            self._body = make(item_shape, latent + classes, width, epsilon)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    bound = 1 / math.sqrt(module.weight[0].numel())
                    for parameter in module.parameters():
                        parameter.uniform_(-bound, bound, generator=generator)
        self._last_norm = nn.BatchNorm1d(_channels(item_shape), affine=False, track_running_stats=False)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """``[n, latent]`` noise, and ``[n]`` int64 labels where there are classes."""
        if labels is not None:
            noise = torch.cat([noise, F.one_hot(labels, self._classes).to(noise.dtype)], 1)
        raw = torch.tanh(self._body(noise)).reshape(len(noise), _channels(self._item_shape), -1)
        normalised: Tensor = self._last_norm(raw)
        return normalised.reshape(-1, *self._item_shape)


def _channels(item_shape: tuple[int, ...]) -> int:
    """As many as :meth:`Task.input_scale` knows scales of: one where an input is a plain vector."""
    return item_shape[0] if len(item_shape) > 1 else 1


class _Decoder(nn.Module):
    def __init__(self, item_shape: tuple[int, ...], latent: int, width: int, epsilon: float) -> None:
        super().__init__()
        channels, *sizes = item_shape
        deep, last = width, max(1, width // 2)
        self._full = (sizes[0], sizes[1])
        self._half = ((sizes[0] + 1) // 2, (sizes[1] + 1) // 2)
        self._quarter = ((self._half[0] + 1) // 2, (self._half[1] + 1) // 2)
        self.seed = nn.Linear(latent, deep * math.prod(self._quarter))
        self.seed_norm = nn.BatchNorm2d(deep, track_running_stats=False)
        self.coarse = nn.Conv2d(deep, deep, 3, padding=1)
        self.coarse_norm = nn.BatchNorm2d(deep, epsilon, track_running_stats=False)
        self.fine = nn.Conv2d(deep, last, 3, padding=1)
        self.fine_norm = nn.BatchNorm2d(last, epsilon, track_running_stats=False)
        self.last = nn.Conv2d(last, channels, 3, padding=1)

    def forward(self, noise: Tensor) -> Tensor:
        hidden = self.seed_norm(self.seed(noise).reshape(len(noise), -1, *self._quarter))
        hidden = F.interpolate(hidden, size=self._half)
        hidden = F.leaky_relu(self.coarse_norm(self.coarse(hidden)), 0.2)
        hidden = F.interpolate(hidden, size=self._full)
        hidden = F.leaky_relu(self.fine_norm(self.fine(hidden)), 0.2)
        made: Tensor = self.last(hidden)
        return made


class _Perceptron(nn.Sequential):
    def __init__(self, item_shape: tuple[int, ...], latent: int, width: int, epsilon: float) -> None:
        first, second = 2 * width, 4 * width
        super().__init__(
            nn.Linear(latent, first),
            nn.BatchNorm1d(first, epsilon, track_running_stats=False),
            nn.LeakyReLU(0.2),
            nn.Linear(first, second),
            nn.BatchNorm1d(second, epsilon, track_running_stats=False),
            nn.LeakyReLU(0.2),
            nn.Linear(second, math.prod(item_shape)),
        )


class InputGenerator:
    """The network with what stands before and behind it: noise, and the input's scale and range.

    Args:
        task: what it makes inputs for.
        method: what to call the method in messages.
        latent: length of the noise vector.
        width: see :class:`PaperGenerator`.
        batch: most inputs made together.
        epsilon: see :class:`PaperGenerator`.
        conditional: whether it takes labels.

    Raises:
        DataError: a batch of one, which cannot be normalised by its own statistics.
    """

    def __init__(
        self,
        task: Task,
        method: str,
        *,
        latent: int,
        width: int,
        batch: int,
        epsilon: float,
        conditional: bool = False,
    ) -> None:
        if batch < 2:
            raise DataError(f"{method}, batch", f"{batch}", "2 or more", "The generator normalises by the batch.")
        self._task, self._latent, self._batch = task, latent, batch
        self._mean, self._scale = (tensor.to(task.device) for tensor in task.input_scale())
        classes = task.classes if conditional else 0
        network = PaperGenerator(task.item_shape, latent, classes, width, epsilon, task.generator)
        self.network = network.to(task.device)

    def make(self, count: int, labels: Tensor | None = None) -> Tensor:
        """``[count, *item_shape]`` inputs of one batch, clipped forwards and not backwards; differentiable."""
        return self._straight(self.network(self._task.normal(count, self._latent), labels))

    def _straight(self, normalised: Tensor) -> Tensor:
        raw = self._mean + self._scale * normalised
        inputs: Tensor = raw + (self._task.clamp(raw) - raw).detach()
        return inputs

    @torch.no_grad()
    def sample(self, count: int, labels: Tensor | None = None) -> Tensor:
        """``[count, *item_shape]`` inputs from fresh noise, in batches that are large enough to normalise."""
        made: list[Tensor] = []
        for start in range(0, count, self._batch):
            wanted = min(self._batch, count - start)
            given = None if labels is None else labels[start : start + wanted]
            size = max(wanted, min(self._batch, FEWEST))
            if given is not None and size > wanted:
                given = torch.cat([given, self._task.integers(self._task.classes, size - wanted)])
            made.append(self._task.clamp(self.make(size, given))[:wanted])
        return torch.cat(made)
