"""`noise-bn`: noise, which the teacher labels with its BatchNormalization in batch mode.

Raikwar and Mishra, "Discovering and Overcoming Limitations of Noise-engineered Data-free Knowledge Distillation",
NeurIPS 2022: noise meets stored statistics that are not its own, layer after layer, until the teacher's output hardly
depends on it. Normalised by the batch's own statistics, noise keeps the scale that each layer expects, and the
teacher's answers differ again. A bundle whose graph has no BatchNormalization is labelled exactly as by `noise`, of
which this then is a repetition.

Where we differ from the published code: noise has the input's own mean and deviation and is clipped to its range (the
code's inputs are normalised, and are not clipped). The code leaves the student in batch mode when it measures it too,
so that test images are normalised by the test batch; a student that is shipped has to do with the running statistics
that it gathered from noise. Expect less than the paper's figures of a student with batch normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta.graph.batch_statistics import BatchStatisticsGraph
from dfmeta.synthesis._contract import Task

# The published CIFAR-10 run: 200 epochs of as many steps as 50,000 images make. Its rate falls when a validation set
# says so, which is not there here. Its loss, cross-entropy to soft targets, differs from KL by the teacher's own
# entropy.
TRAINING = {
    "steps": 39_200,
    "batch": 256,
    "lr": 1e-3,
    "shift": 0.0,
    "loss": "kl",
    "temperature": 1.0,
    "optimizer": "adam",
    "schedule": "constant",
}

# Labels depend on the batch, so that few inputs are labelled among others, which are dropped.
FEWEST = 64


@dataclass(frozen=True, slots=True)
class Config:
    """Noise has nothing to set."""


class NoiseBatchStatistics:
    """Draws inputs from N(mean, std) of the input, clipped to the range the input can have."""

    steps = 0

    def __init__(self, task: Task) -> None:
        self._task = task
        self._mean, self._deviation = (tensor.to(task.device) for tensor in task.input_scale())
        self._teacher = BatchStatisticsGraph(task.teacher.graph).to(task.device)

    def advance(self) -> float:
        """Nothing to optimise."""
        return 0.0

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Fresh noise; the label is the class that the teacher sees in it, in batch mode."""
        size = max(count, FEWEST)
        inputs = self._task.clamp(self._mean + self._deviation * self._task.normal(size, *self._task.item_shape))
        with torch.no_grad():
            labels = self.teach(inputs).argmax(1)
        return inputs[:count], labels[:count]

    def teach(self, inputs: Tensor) -> Tensor:
        """``[n, classes]`` the teacher's logits, each BatchNormalization by the statistics of ``inputs`` themselves.

        Raises:
            GraphError: a single value a channel, or a graph that can only be run item by item.
        """
        name = self._task.output_name
        return self._teacher.run({self._task.input_name: inputs}, [name])[name]


def build(task: Task, config: Config) -> NoiseBatchStatistics:
    """The method for ``task``."""
    del config
    return NoiseBatchStatistics(task)
