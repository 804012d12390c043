"""`lopes`: one image at a time, driven to sampled activations.

Lopes, Fenu and Starner, "Data-Free Knowledge Distillation for Deep Neural Networks", arXiv:1710.07535, sec. 3:
draw a target activation for each recorded layer from the class's Gaussian, start from noise of the input's
scale, and move the input by gradient descent until the network's activations meet the target.

| variant | a target for | drawn from | preset |
|---|---|---|---|
| `top-layer` | the output | mean and covariance; deviations alone where no spectrum was recorded | `top-layer` |
| `all-layers` | every recorded site but the input | means and deviations | `all-layers` |
| `all-layers-dropout` | the same, by a network that lacks some units | the same | `all-layers` |
| `spectral` | every recorded site but the input | mean and leading eigenpairs of the covariance | `spectral` |
| `spectral-pairs` | the same | the same, with sites that follow each other drawn together | `spectral-pairs` |

The published spectral code does not run, and its statistics (eigenvectors of a nilpotent graph of products of means)
hold no more than the means. `spectral` and `spectral-pairs` do what the paper sets out to do, with the kinds
`spectrum` and `cross-spectrum`: see :mod:`dfmeta.synthesis._gaussians` for how targets of two sites are drawn together.
They also look at the batch: a share of their loss (``together``) is how far the images of a class, as a set, are from
the records, so that they vary as recorded where their own targets contradict each other.

Where we differ from the published code, and why:

* targets are ``mean + z S^(1/2)`` with ``S`` the class covariance; the code multiplies by the covariance itself, which
  samples its square;
* each layer's error is divided by the recorded variance; the code divides by the layer's size a second time,
  which leaves wide layers almost no weight;
* logits are compared as they are; the code compares them after a ReLU, so that negative ones say nothing;
* with dropout, what is kept is divided by the probability of keeping it; the code compares halved sums with targets
  that were recorded without dropout;
* inputs are kept inside the range that the preprocessing allows;
* sites recorded by channel (those of more than 4096 features) have no targets of their own for each image, but the mean
  and the deviation over its positions that the class has.

The paper reconstructs 64,000 images of MNIST, 64 at a time with 1000 steps each, which takes hours on a CPU, and
trains the student on them with softened probabilities. Our defaults are smaller; its own are ``--set images=64000
--set batch=64 --set iterations=1000 --train loss=kl --train temperature=8 --train schedule=constant --train lr=1e-5
--train batch=64 --train steps=30000`` (30 epochs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta._settings import share
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._descent import descend
from dfmeta.synthesis._dropped_units import DroppedUnits
from dfmeta.synthesis._lopes_goals import Goals
from dfmeta.synthesis._lopes_targets import draw

VARIANTS = ("top-layer", "all-layers", "all-layers-dropout", "spectral", "spectral-pairs")


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
        together: of `spectral` and `spectral-pairs`: share of the loss that is the batch's distance from the records;
            the rest is each image's distance from its own targets.
        drop_input, drop_hidden: of `all-layers-dropout`: probability that a number of the input, or a hidden unit, is
            dropped (the published code's).
    """

    images: int = 4000
    batch: int = 500
    iterations: int = 100
    lr: float = 0.07
    noise: float = 1 / 3
    together: float = share(0.9)
    drop_input: float = share(0.2)
    drop_hidden: float = share(0.5)


class Lopes:
    """Reconstructs a fixed set of images, ``batch`` at a time, then draws from it."""

    def __init__(self, task: Task, config: Config, variant: str) -> None:
        self._task, self._config = task, config
        self._goals = Goals.of(task, variant)
        self._together = config.together if self._goals.matched else 0.0
        dropout = variant == "all-layers-dropout"
        self._dropped = DroppedUnits(task, config.drop_input, config.drop_hidden) if dropout else None
        self.steps = -(-config.images // config.batch)
        self._inputs: list[Tensor] = []
        self._labels: list[Tensor] = []

    def advance(self) -> float:
        """Reconstruct one batch; returns its final mean loss."""
        task, config = self._task, self._config
        count = min(config.batch, config.images - config.batch * len(self._inputs))
        labels = self._goals.classes[torch.arange(count, device=task.device) % len(self._goals.classes)]
        wanted = draw(task, self._goals.targets, labels)
        masks = self._dropped.masks(count) if self._dropped else {}
        mean, deviation = task.input_scale()
        start = task.clamp(mean + config.noise * deviation * task.normal(count, *task.item_shape))
        inputs, loss = descend(
            task,
            start,
            lambda moved: self._loss(moved, labels, wanted, masks),
            config.iterations,
            config.lr * _span(task, deviation),
            f"lopes, batch {len(self._inputs) + 1}",
        )
        self._inputs.append(inputs)
        self._labels.append(labels)
        return loss / count

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw from the reconstructed images with replacement."""
        inputs, labels = torch.cat(self._inputs), torch.cat(self._labels)
        rows = self._task.integers(len(inputs), count)
        return inputs[rows], labels[rows]

    def _loss(self, inputs: Tensor, labels: Tensor, wanted: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        """Summed over the images, so that what one image does is not slowed down by how many there are."""
        names = self._goals.values
        task, goals = self._task, self._goals
        values = self._dropped.values(inputs, names, masks) if self._dropped else task.values(inputs, names)
        loss = inputs.new_zeros(())
        for target in goals.targets:
            name = target.statistic.value
            hidden = name != task.output_name
            loss = loss + (1 - self._together) * target.error(values[name], labels, wanted[name], hidden).sum()
        for statistic in goals.matched if self._together else ():
            loss = loss + self._together * len(labels) * statistic.distance(values, labels)
        return loss


def _span(task: Task, deviation: Tensor) -> float:
    """The input's range, for a step size that does not depend on its units."""
    span = (task.high - task.low).max()
    return float(span) if bool(torch.isfinite(span)) else float(deviation.mean()) * 4


def build(task: Task, config: Config, variant: str) -> Lopes:
    """The method for ``task``.

    Raises:
        StepError: the bundle lacks the records that the variant needs; the text names the preset that has them.
    """
    return Lopes(task, config, variant)
