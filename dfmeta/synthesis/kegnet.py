"""`kegnet`: generators that the teacher recognises classes in, kept various by a decoder that finds their noise again.

Yoo, Cho, Kim and Kang, "Knowledge Extraction with No Observable Data", NeurIPS 2019: a generator makes an input of a
class and noise; its loss is the teacher's cross-entropy to the class, ``alpha`` times the error of a decoder that
reads the noise from the input, and ``beta`` times a term that falls as inputs of different noise lie further apart.
Several are trained, one after the other, and what they make is pooled. The numbers are those of its MNIST experiment;
its other image sets take ``beta`` 10 and 3 decoder layers (Fashion-MNIST), ``beta`` 1 and 3 (SVHN), both with ``lr``
0.01. No records are needed; those of the input give its scale.

Where we differ, and why:

* each image comes out standardised, as there, and is then given the mean and deviation of the model's input and kept
  inside its range, since the standardised scale is that of their preprocessing. The gradient passes the edge of the
  range unchanged, or a pixel beyond it would never come back;
* distances in the diversity term are means over entries, so that ``beta`` means the same for inputs of any size;
* images of other sizes than 32x32 start from an eighth of their size, rounded up, and are cropped;
* an input that is no image has a dense last layer in place of deconvolutions, with each feature standardised;
* they stop the student's training by real data. There is none here: the student of the last step is the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta._settings import weight
from dfmeta.errors import Diverged, StepError
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._kegnet_networks import decoder_network, generator_network

# 400 epochs of 64 x 100 inputs of each of 5 generators, in batches of 64.
TRAINING = MappingProxyType(
    {
        "steps": 200_000,
        "batch": 64,
        "lr": 1e-5,
        "loss": "kl",
        "temperature": 1.0,
        "optimizer": "adam",
        "schedule": "constant",
        "shift": 0.0,
    }
)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the generators' training.

    Attributes:
        generators: how many there are.
        iterations: steps of each (200 epochs of 100 batches).
        batch: inputs in a step.
        lr: Adam's step.
        latent: length of the noise vector.
        hidden: units of a layer of the decoder.
        layers: hidden layers of the decoder.
        alpha: weight of the decoder's error.
        beta: weight of the diversity term; 0 leaves it out.
    """

    generators: int = 5
    iterations: int = 20_000
    batch: int = 256
    lr: float = 1e-3
    latent: int = 10
    hidden: int = 120
    layers: int = 1
    alpha: float = 1.0
    beta: float = weight(0.0)


class KegNet:
    """Trains the generators in turn, each with a decoder of its own, then draws from all of them."""

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._config = task, config
        self.steps = config.generators * config.iterations
        self._mean, deviation = task.input_scale()
        # A channel that never changes is nothing to be divided by.
        self._deviation = deviation.clamp(min=1e-8)
        self._generators: list[nn.Module] = []
        self._done = 0

    def advance(self) -> float:
        """One step of the present generator and its decoder on one batch.

        Raises:
            Diverged: the loss is not finite.
        """
        if self._done % self._config.iterations == 0:
            self._begin()
        noise, labels = self._draw(self._config.batch)
        inputs = self._inputs(self._generators[-1](noise, labels))
        loss = self._loss(inputs, noise, labels)
        self._done += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            error = Diverged(f"kegnet, step {self._done}", f"a loss of {value}", "a finite number", "Lower lr.")
            error.step = self._done
            raise error
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return value

    @torch.no_grad()
    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Fresh inputs, each of a generator and a class drawn at random.

        Raises:
            StepError: before the first step.
        """
        if not self._generators:
            raise StepError("kegnet", "no generator", "at least one step before inputs are drawn")
        noise, labels = self._draw(count)
        owners = self._task.integers(len(self._generators), count)
        inputs = torch.empty(count, *self._task.item_shape, device=self._task.device)
        for index, generator in enumerate(self._generators):
            rows = torch.nonzero(owners == index).flatten()
            if len(rows):
                inputs[rows] = self._inputs(generator.eval()(noise[rows], labels[rows]))
        return inputs, labels

    def _begin(self) -> None:
        """The next generator, with a decoder of its own."""
        task, config = self._task, self._config
        made = generator_network(task.item_shape, task.classes, config.latent, task.generator)
        decoder = decoder_network(task.item_shape, config.latent, config.hidden, config.layers, task.generator)
        self._generators.append(made.to(task.device).train())
        self._decoder = decoder.to(task.device).train()
        parameters = [*made.parameters(), *decoder.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=config.lr)

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        noise = self._task.normal(count, self._config.latent)
        return noise, self._task.integers(self._task.classes, count)

    def _inputs(self, standard: Tensor) -> Tensor:
        """Standardised values in the model's own scale, inside its range forwards, past it backwards."""
        raw = self._mean + self._deviation * standard
        return raw + (self._task.clamp(raw) - raw).detach()

    def _loss(self, inputs: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        config = self._config
        loss = F.cross_entropy(self._task.logits(inputs), labels)
        found = self._decoder((inputs - self._mean) / self._deviation)
        loss = loss + config.alpha * F.mse_loss(found, noise)
        if config.beta:
            loss = loss + config.beta * diversity(noise, inputs)
        return loss


def diversity(noise: Tensor, inputs: Tensor) -> Tensor:
    """``exp(-mean(|z_i - z_j|^2 |x_i - x_j|_1))`` over all pairs of a batch, both distances as means over entries.

    Args:
        noise: ``[n, latent]``.
        inputs: ``[n, ...]``.
    """
    flat = inputs.flatten(1)
    apart = (noise[:, None] - noise[None]).square().mean(2)
    return torch.exp(-(apart * torch.cdist(flat, flat, p=1) / flat.shape[1]).mean())


def build(task: Task, config: Config) -> KegNet:
    """The method for ``task``."""
    return KegNet(task, config)
