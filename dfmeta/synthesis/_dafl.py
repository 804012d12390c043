"""What `dafl` and `dafl-conditional` have in common: the losses, and a generator that learns beside the student."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._dafl_generator import InputGenerator
from dfmeta.synthesis._finite import finite_loss

# The published code's second argument of its inner normalisations; it was perhaps meant as the momentum.
EPSILON = 0.8

# The published MNIST run: Adam with a constant rate, 200 epochs of 120 steps, KL at temperature 1, no augmentation.
TRAINING = {
    "steps": 24_000,
    "batch": 512,
    "lr": 2e-3,
    "shift": 0.0,
    "loss": "kl",
    "temperature": 1.0,
    "optimizer": "adam",
    "schedule": "constant",
}


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the generator; the defaults are those of the published MNIST run.

    Attributes:
        iterations: the generator's steps where no student learns beside it (200 epochs of 120).
        batch: inputs in a step.
        lr: Adam's rate.
        latent: length of the noise vector.
        width: maps of the generator's first two stages; its cost grows with the square.
        one_hot: weight of the cross-entropy (the code's ``oh``).
        entropy: weight of the information entropy of the mean prediction (``ie``).
        activation: weight of the mean absolute activation (``a``).
    """

    iterations: int = 24_000
    batch: int = 512
    lr: float = 0.2
    latent: int = 100
    width: int = 128
    one_hot: float = 1.0
    entropy: float = 5.0
    activation: float = 0.1


class Dafl:
    """One generator step for each step of the student.

    Args:
        task: what it may use; records are not needed.
        config: settings.
        method: its name, for messages.
        conditional: whether the generator takes labels, see `dafl-conditional`.

    Raises:
        DataError: a batch of one.
        StepError: a graph without a layer of weights.
    """

    student_steps = 1

    def __init__(self, task: Task, config: Config, method: str, *, conditional: bool) -> None:
        self._task, self._config, self._method, self._conditional = task, config, method, conditional
        self.steps = config.iterations
        self._feature = last_layer_input(task)
        self._generator = InputGenerator(
            task,
            method,
            latent=config.latent,
            width=config.width,
            batch=config.batch,
            epsilon=EPSILON,
            conditional=conditional,
        )
        self._optimizer = torch.optim.Adam(self._generator.network.parameters(), lr=config.lr)
        self._done = 0

    def advance(self) -> float:
        """One step of the generator."""
        labels = self._task.integers(self._task.classes, self._config.batch) if self._conditional else None
        inputs = self._generator.make(self._config.batch, labels)
        values = self._task.values(inputs, [self._feature, self._task.output_name])
        loss = self._loss(values[self._task.output_name], values[self._feature], labels)
        self._done += 1
        value = finite_loss(loss, self._method, self._done)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return value

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """What the generator now makes of fresh noise; the class that was asked for, or else that the teacher sees."""
        if self._conditional:
            labels = self._task.integers(self._task.classes, count)
            return self._generator.sample(count, labels), labels
        inputs = self._generator.sample(count)
        with torch.no_grad():
            return inputs, self._task.logits(inputs).argmax(1)

    def _loss(self, logits: Tensor, feature: Tensor, labels: Tensor | None) -> Tensor:
        config = self._config
        one_hot = F.cross_entropy(logits, logits.detach().argmax(1) if labels is None else labels)
        mean = logits.softmax(1).mean(0).clamp(min=1e-12)
        # Minus the entropy, in the code's own unit: log10(classes) at most.
        information = (mean * mean.log10()).sum()
        return config.one_hot * one_hot + config.entropy * information - config.activation * feature.abs().mean()


def last_layer_input(task: Task) -> str:
    """The value that the last operator with weights before the output reads: the teacher's features ``f_T``.

    Raises:
        StepError: a graph without such an operator.
    """
    graph = task.teacher.graph
    needed = {task.output_name}
    for node in reversed(graph.model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    # Another branch may read the same value, but with weights that the output does not need.
    found = [entry.value for entry in operator_inputs(graph) if {entry.value, entry.weight} <= needed]
    if not found:
        raise StepError(
            "model", "no layer with weights before the output", "at least one", "Use a method that needs no features."
        )
    return found[-1]
