"""`lopes:top-layer` and `lopes:all-layers`: one image at a time, driven to sampled activations.

Lopes, Fenu and Starner, "Data-Free Knowledge Distillation for Deep Neural Networks", arXiv:1710.07535, sec. 3:
draw a target activation for each recorded layer from the class's Gaussian, start from noise of the input's
scale, and move the input by gradient descent until the network's activations meet the target.

Where we differ from the published code, and why:

* targets are ``mean + z F`` with ``F F^T`` the class covariance (a factor from the `spectrum` record plus its
  residual, or the recorded deviations alone); the code multiplies by the covariance itself, which samples its
  square;
* each layer's error is divided by the recorded variance; the code divides by the layer's size a second time,
  which leaves wide layers almost no weight;
* logits are compared as they are; the code compares them after a ReLU, so that negative ones say nothing;
* inputs are kept inside the range that the preprocessing allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.records import Statistic, feature_vectors
from dfmeta.synthesis._contract import Task

VARIANTS = ("top-layer", "all-layers")


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the reconstruction.

    Attributes:
        images: how many inputs to reconstruct in all.
        batch: inputs optimised together.
        iterations: descent steps for each batch.
        lr: Adam's step (the paper's 0.07, in units of the input's range).
        noise: deviation of the starting noise, in units of the input's (the published code starts MNIST, whose
            deviation is about 0.3, at 0.1).
    """

    images: int = 4000
    batch: int = 500
    iterations: int = 100
    lr: float = 0.07
    noise: float = 1 / 3


@dataclass(frozen=True, slots=True)
class _Target:
    """A site's class Gaussians, and a sampled target for one batch."""

    statistic: Statistic
    mean: Tensor
    variance: Tensor
    vectors: Tensor | None
    values: Tensor | None
    residual: Tensor | None

    def draw(self, task: Task, labels: Tensor) -> Tensor:
        """``[n, d]`` one activation for each label, from its class's Gaussian."""
        mean = self.mean[labels]
        if self.vectors is None or self.values is None or self.residual is None:
            return mean + self.variance[labels].sqrt() * task.normal(*mean.shape)
        inside = self.values[labels].sqrt() * task.normal(len(labels), self.values.shape[1])
        outside = (self.residual[labels] / mean.shape[1]).sqrt()[:, None] * task.normal(*mean.shape)
        return (
            mean
            + outside
            + torch.stack([row @ self.vectors[label] for row, label in zip(inside, labels.tolist(), strict=True)])
        )

    def error(self, value: Tensor, labels: Tensor, target: Tensor, hidden: bool) -> Tensor:
        """Squared error of each image, in units of the class's variance; after the ReLU for hidden sites."""
        scale = self.variance[labels].mean(1) + 1e-8
        if self.statistic.features == "channel":
            samples, _ = feature_vectors(value, labels, "channel", self.statistic.feature_axis)
            samples = samples.reshape(len(labels), -1, samples.shape[-1])
            deviation = self.variance[labels].sqrt()
            error = (samples.mean(1) - self.mean[labels]).square()
            error = error + ((samples.var(1, unbiased=False) + 1e-8).sqrt() - deviation).square()
        else:
            found = value.flatten(1)
            error = (found.relu() - target.relu() if hidden else found - target).square()
        return error.mean(1) / scale


class Lopes:
    """Reconstructs a fixed set of images, ``batch`` at a time, then draws from it."""

    def __init__(self, task: Task, config: Config, variant: str) -> None:
        self._task, self._config = task, config
        wanted = [task.output_name] if variant == "top-layer" else _recorded(task)
        self._targets = [_target(task, value, variant) for value in wanted]
        self._classes = _observed(self._targets)
        self.steps = -(-config.images // config.batch)
        self._inputs: list[Tensor] = []
        self._labels: list[Tensor] = []

    def advance(self) -> float:
        """Reconstruct one batch; returns its final mean loss."""
        task, config = self._task, self._config
        count = min(config.batch, config.images - config.batch * len(self._inputs))
        labels = self._classes[torch.arange(count) % len(self._classes)]
        goals = [target.draw(task, labels) for target in self._targets]
        mean, deviation = task.input_scale()
        inputs = task.clamp(mean + config.noise * deviation * task.normal(len(labels), *task.item_shape))
        span = _span(task, deviation)
        optimizer = torch.optim.Adam([inputs.requires_grad_()], lr=config.lr * span)
        loss = inputs.new_zeros(())
        for _ in range(config.iterations):
            loss = self._loss(inputs, labels, goals)
            (inputs.grad,) = torch.autograd.grad(loss, inputs)
            optimizer.step()
            with torch.no_grad():
                inputs.copy_(task.clamp(inputs))
        if not bool(torch.isfinite(inputs).all()):
            raise StepError("lopes", "a NaN in the reconstructed inputs", "finite numbers", "Lower lr.")
        self._inputs.append(inputs.detach())
        self._labels.append(labels)
        return loss.item() / len(labels)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw from the reconstructed images with replacement."""
        inputs, labels = torch.cat(self._inputs), torch.cat(self._labels)
        rows = torch.randint(len(inputs), (count,), generator=self._task.generator)
        return inputs[rows], labels[rows]

    def _loss(self, inputs: Tensor, labels: Tensor, goals: list[Tensor]) -> Tensor:
        names = [target.statistic.value for target in self._targets]
        values = self._task.values(inputs, names)
        loss = inputs.new_zeros(())
        for target, name, goal in zip(self._targets, names, goals, strict=True):
            hidden = name not in (self._task.output_name, self._task.input_name)
            loss = loss + target.error(values[name], labels, goal, hidden).sum()
        return loss


def _span(task: Task, deviation: Tensor) -> float:
    """The input's range, for a step size that does not depend on its units."""
    span = (task.high - task.low).max()
    return float(span) if bool(torch.isfinite(span)) else float(deviation.mean()) * 4


def _recorded(task: Task) -> list[str]:
    """Values with a record of each class, in the manifest's order, input left out as in the paper."""
    values = [entry.value for entry in task.records if entry.by_class and entry.value != task.input_name]
    return list(dict.fromkeys(values)) or [task.output_name]


def _observed(targets: list[_Target]) -> Tensor:
    """The classes that no record withholds; the others cannot be reconstructed."""
    counts = torch.stack([target.statistic.tensors["count"] for target in targets])
    found = torch.nonzero((counts > 0).all(0)).flatten()
    if not len(found):
        raise StepError("records", "no class that was published", "at least one", "Use the method noise.")
    return found


def _target(task: Task, value: str, preset: str) -> _Target:
    moments = task.records.need(value, "moments", by_class=True, preset=preset)
    mean, variance = moments.tensors["mean"], moments.tensors["var"]
    spectrum = task.records.of(value, "spectrum", by_class=True)
    if spectrum is None:
        return _Target(moments, mean, variance, None, None, None)
    parts = spectrum.tensors
    return _Target(moments, mean, variance, parts["eigenvectors"], parts["eigenvalues"], parts["residual_trace"])


def build(task: Task, config: Config, variant: str) -> Lopes:
    """The method for ``task``.

    Raises:
        StepError: the bundle holds no moments of each class where the variant needs them.
    """
    return Lopes(task, config, variant)
