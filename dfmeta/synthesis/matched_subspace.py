"""`matched-subspace`: samples of the class Gaussians of the input, refined until deeper layers match as well.

Start: inputs of `class-subspace`, from each class's `spectrum` of the input, with the recorded distribution of values.
They have the mean and covariance of the data and nothing else: of digits that is nearly everything, of natural images
it is blurred clouds, to which the deeper layers answer as they never do to images. So each batch is compared with what
is known of those layers, the stored statistics of BatchNormalization or else recorded `moments`, and where it is off,
its values are moved down the gradient until it is not, with the teacher naming each input's class. Where the start is
good enough, nothing is optimised, and inputs are drawn afresh for every batch of the student.

A student that is a narrower copy of the teacher is also given hints (:mod:`dfmeta.compress.hints`).

Kin: optimising inputs to match BatchNormalization's statistics, DeepInversion (arXiv:1912.08795, eq. 4), which starts
from noise and pays for that with thousands of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta._settings import share, weight
from dfmeta.synthesis import class_subspace
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._feature_statistics import feature_statistics
from dfmeta.synthesis._finite import finite_loss

TRAINING = {"steps": 2000, "lr": 2e-3, "hints": 5.0}


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the refinement.

    Attributes:
        inputs: how many refined inputs to keep and draw from, in whole batches.
        batch: inputs refined together; their statistics are matched together.
        iterations: most steps for each batch.
        tolerance: refinement ends, or is not begun, where the mean squared distance of the layers' means and
            deviations from the known ones, in deviations, is below.
        lr: Adam's rate, in deviations of the input.
        match: weight of that distance.
        classify: weight of the cross-entropy of the teacher to each input's class.
        sharpen: as of `class-subspace`.
    """

    inputs: int = 4096
    batch: int = 256
    iterations: int = 40
    tolerance: float = 0.03
    lr: float = 0.03
    match: float = 10.0
    classify: float = weight(0.3)
    sharpen: float = share(1.0)


class MatchedSubspace:
    """Refines one batch with each step, where that is needed, and draws from all of them.

    Raises:
        StepError: the bundle has no spectrum of each class of the flattened input.
    """

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._config = task, config
        self._start = class_subspace.build(task, class_subspace.Config(sharpen=config.sharpen))
        known = feature_statistics(task) if _anything(task) else ()
        self._statistics = [entry for entry in known if entry.value != task.input_name]
        scale = task.input_scale()[1]
        self._scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self._inputs: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._taken = 0
        needed = bool(self._statistics) and self._off(self._start.sample(config.batch)[0]) > config.tolerance
        self.steps = -(-config.inputs // config.batch) if needed else 0

    def advance(self) -> float:
        """Refine one batch; returns how far it is off afterwards."""
        inputs, labels = self._start.sample(self._config.batch)
        inputs, off = self._refined(inputs, labels)
        self._inputs.append(inputs)
        self._labels.append(labels)
        return off

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Refined inputs, with replacement, and the classes they were made for; fresh ones where none were needed."""
        if not self._inputs:
            return self._start.sample(count)
        if len(self._inputs) > 1:
            self._inputs, self._labels = [torch.cat(self._inputs)], [torch.cat(self._labels)]
        rows = self._task.integers(len(self._labels[0]), count)
        return self._inputs[0][rows], self._labels[0][rows]

    def _refined(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        task, config = self._task, self._config
        moved = (inputs / self._scale).requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=config.lr, betas=(0.5, 0.99))
        off = 0.0
        for _ in range(config.iterations):
            values = self._values(moved * self._scale)
            distance = self._distance(values)
            off = float(distance.detach())
            if off <= config.tolerance:
                break
            loss = config.match * distance
            if config.classify:
                loss = loss + config.classify * F.cross_entropy(values[task.output_name], labels)
            self._taken += 1
            finite_loss(loss, "matched-subspace", self._taken)
            (moved.grad,) = torch.autograd.grad(loss, moved)
            optimizer.step()
            with torch.no_grad():
                moved.copy_(task.clamp(moved * self._scale) / self._scale)
        return task.clamp(moved.detach() * self._scale), off

    def _off(self, inputs: Tensor) -> float:
        with torch.no_grad():
            return float(self._distance(self._values(inputs)))

    def _values(self, inputs: Tensor) -> dict[str, Tensor]:
        names = dict.fromkeys([*(entry.value for entry in self._statistics), self._task.output_name])
        return self._task.values(inputs, [*names])

    def _distance(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([entry.relative_distance(values) for entry in self._statistics]).mean()


def _anything(task: Task) -> bool:
    """Whether anything is known of the layers."""
    stored = any(node.op_type == "BatchNormalization" for node in task.teacher.graph.model.graph.node)
    return stored or any(entry.kind == "moments" for entry in task.records)


def build(task: Task, config: Config) -> MatchedSubspace:
    """The method for ``task``.

    Raises:
        StepError: the bundle holds no spectrum of each class for the flattened input, or withholds every class.
    """
    return MatchedSubspace(task, config)
