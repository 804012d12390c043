"""Inputs that are drawn from a data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta.errors import MethodInput
from dfmeta.synthesis._contract import Task


@dataclass(frozen=True, slots=True)
class NoSettings:
    """There is nothing to set."""


class Drawn:
    """Draws units of the data, with replacement.

    Raises:
        MethodInput: a task without data.
    """

    steps = 0

    def __init__(self, task: Task) -> None:
        if task.data is None:
            raise MethodInput("data", "none", "a data set to draw from (--data)")
        self._task, self._data = task, task.data

    def advance(self) -> float:
        """Nothing to optimise."""
        return 0.0

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Units of the data; the label is the data's own, and the class that the teacher sees where it has none."""
        inputs, labels = self._data(count)
        if bool((labels < 0).any()):
            with torch.no_grad():
                labels = self._task.logits(inputs).argmax(1)
        return inputs, labels
