"""What `deepinversion` and `deepinversion-adaptive` have in common: batches of images, optimised pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta._settings import share
from dfmeta.errors import DataError
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._feature_statistics import feature_statistics
from dfmeta.synthesis._finite import finite_loss


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the optimisation.

    Attributes:
        images: how many inputs to make, in whole batches, of which the newest are kept (as many as CIFAR-10 has; the
            paper made 140,000 for ImageNet).
        batch: inputs optimised together; their statistics are matched together.
        iterations: steps for each batch.
        lr: Adam's rate, in deviations of the input.
        match: weight of the feature statistics' distance (``r_feature``).
        variation: weight of the total variation.
        energy: weight of the norm of the batch.
        jitter: images are moved by up to this share of their height and width in each step.
        flip: in what share of the steps the images are mirrored (half of them in the ImageNet run).
    """

    images: int = 50_000
    batch: int = 256
    iterations: int = 2_000
    lr: float = 0.05
    match: float = 10.0
    variation: float = 2.5e-5
    energy: float = 1e-5
    jitter: float = share(2 / 32)
    flip: float = share(0.0)


class Inversion:
    """Optimises one batch of inputs with each step, keeps the last ``images`` of them, and draws from those.

    Args:
        task: what it may use.
        config: settings.
        method: its name, for messages.

    Raises:
        StepError: neither BatchNormalization nor recorded `moments`.
        DataError: a batch of one, which has no variance.
    """

    def __init__(self, task: Task, config: Config, method: str) -> None:
        if min(config.batch, config.images) < 2:
            raise DataError(f"{method}, batch and images", "1", "2 or more", "A single input has no variance to match.")
        self._task, self._config, self._method = task, config, method
        self._statistics = feature_statistics(task)
        self._batch = min(config.batch, config.images)
        self.steps = -(-config.images // self._batch)
        mean, scale = (tensor.to(task.device) for tensor in task.input_scale())
        # A channel that never varies is optimised in its own units.
        self._mean, self._scale = mean, torch.where(scale > 0, scale, torch.ones_like(scale))
        self._image = len(task.item_shape) == 3 and min(task.item_shape[1:]) > 1
        self._inputs = torch.zeros(0, *task.item_shape, device=task.device)
        self._labels = torch.zeros(0, dtype=torch.int64, device=task.device)
        self._made = self._done = 0

    def advance(self) -> float:
        """Make one batch of inputs, from noise; returns the loss of its last step."""
        task, config = self._task, self._config
        labels = (self._made + torch.arange(self._batch, device=task.device)) % task.classes
        # In units of the input's deviation, as the published code's normalised inputs are.
        pixels = task.normal(self._batch, *task.item_shape).requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=config.lr)
        value = 0.0
        for _ in range(config.iterations):
            loss = self._loss(self._moved(pixels), labels)
            self._done += 1
            value = finite_loss(loss, self._method, self._done)
            (pixels.grad,) = torch.autograd.grad(loss, pixels)
            optimizer.step()
            with torch.no_grad():
                pixels.copy_((task.clamp(self._raw(pixels)) - self._mean) / self._scale)
        inputs = task.clamp(self._raw(pixels.detach()))
        self._made += self._batch
        self._inputs = torch.cat([self._inputs, inputs])[-config.images :]
        self._labels = torch.cat([self._labels, labels])[-config.images :]
        return value

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw from the inputs made, with replacement; the label is the class that an input was made for."""
        rows = self._task.integers(len(self._inputs), count)
        return self._inputs[rows], self._labels[rows]

    def _competition(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """What a student adds to the loss; nothing here."""
        del inputs
        return logits.new_zeros(())

    def _raw(self, pixels: Tensor) -> Tensor:
        return self._mean + self._scale * pixels

    def _loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        task, config = self._task, self._config
        inputs = self._raw(pixels)
        names = [statistic.value for statistic in self._statistics]
        values = task.values(inputs, [*dict.fromkeys([*names, task.output_name])])
        logits = values[task.output_name]
        matched = torch.stack([statistic.distance(values) for statistic in self._statistics]).sum()
        loss: Tensor = F.cross_entropy(logits, labels) + config.match * matched
        loss = loss + config.energy * torch.linalg.vector_norm(pixels)
        if self._image:
            loss = loss + config.variation * total_variation(pixels)
        return loss + self._competition(inputs, logits)

    def _moved(self, pixels: Tensor) -> Tensor:
        """The batch shifted cyclically by some pixels, and sometimes mirrored, as one."""
        if not self._image:
            return pixels
        generator = self._task.generator
        reach = [round(self._config.jitter * size) for size in self._task.item_shape[1:]]
        moves = [int(torch.randint(-most, most + 1, (), generator=generator)) for most in reach]
        moved: Tensor = torch.roll(pixels, moves, (2, 3))
        return moved.flip(3) if float(torch.rand((), generator=generator)) < self._config.flip else moved


def total_variation(images: Tensor) -> Tensor:
    """Sum of the norms, over the whole batch, of differences to the right, below and on both diagonals."""
    right = images[..., :, 1:] - images[..., :, :-1]
    below = images[..., 1:, :] - images[..., :-1, :]
    falling = images[..., 1:, 1:] - images[..., :-1, :-1]
    rising = images[..., 1:, :-1] - images[..., :-1, 1:]
    norms = [torch.linalg.vector_norm(difference) for difference in (right, below, falling, rising)]
    total: Tensor = torch.stack(norms).sum()
    return total


def jensen_shannon(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean Jensen-Shannon divergence of the softened predictions of two sets of ``[n, classes]`` logits, in nats.

    From 0, for equal predictions, to log 2 (arXiv:1912.08795, eq. 6).
    """
    p, q = (F.log_softmax(logits / temperature, 1) for logits in (first, second))
    middle = torch.logaddexp(p, q) - math.log(2)
    divergence = (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(1) / 2
    mean: Tensor = divergence.mean()
    return mean
