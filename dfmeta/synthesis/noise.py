"""`noise`: normal noise of the input's own scale. The baseline that every data-free figure stands beside."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dfmeta.synthesis._contract import Task


@dataclass(frozen=True, slots=True)
class Config:
    """Noise has nothing to set."""


class Noise:
    """Draws inputs from N(mean, std) of the input, clipped to the range the input can have."""

    steps = 0

    def __init__(self, task: Task) -> None:
        self._task = task
        self._mean, self._deviation = task.input_scale()

    def advance(self) -> float:
        """Nothing to optimise."""
        return 0.0

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Fresh noise; the label is the class that the teacher sees in it."""
        inputs = self._mean + self._deviation * self._task.normal(count, *self._task.item_shape)
        inputs = self._task.clamp(inputs)
        logits = self._task.values(inputs, [self._task.output_name])[self._task.output_name]
        return inputs, logits.argmax(1)


def build(task: Task, config: Config) -> Noise:
    """The method for ``task``."""
    del config
    return Noise(task)
