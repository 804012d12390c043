"""`dfad`: a generator that seeks inputs on which student and teacher disagree.

Fang et al., "Data-Free Adversarial Distillation", arXiv:1912.11006, sec. 3.2 and algorithm 1: the student minimises the
mean absolute difference between its logits and the teacher's, the generator maximises it, in turns of five steps of the
student and one of the generator. Records are not needed, beyond the input's scale where there is one.

The generator's gradient passes through the student, which is in training. It is looked at without being changed: batch
normalisation uses the batch's statistics, as in the published code, but there each look also moves the running
statistics towards the generator's newest batch, and leaves gradients that the next step has to clear. Here neither
happens (:mod:`dfmeta.synthesis._student_view`), and Dropout does nothing.

Further differences from the published code: the ends of the generator (:mod:`dfmeta.synthesis._dafl_generator`); the
generator's step comes before the student's five, not after them; the last student counts, not the best on the test set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta.errors import MethodInput
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._dafl_generator import InputGenerator
from dfmeta.synthesis._finite import finite_loss
from dfmeta.synthesis._student_view import student_logits

USES = ("student",)

# The published MNIST run: 40 epochs of 50 turns of five steps, SGD with a constant rate, no augmentation.
TRAINING = {
    "steps": 10_000,
    "batch": 512,
    "lr": 0.01,
    "shift": 0.0,
    "loss": "l1",
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "schedule": "constant",
}

EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the generator; the defaults are those of the published MNIST run.

    Attributes:
        iterations: the generator's steps where the student does not learn (40 epochs of 50).
        batch: inputs in a step.
        lr: Adam's rate.
        latent: length of the noise vector.
        width: maps of the generator's first two stages; its cost grows with the square.
    """

    iterations: int = 2_000
    batch: int = 512
    lr: float = 1e-3
    latent: int = 100
    width: int = 128


class Dfad:
    """One generator step before every five steps of the student.

    Raises:
        MethodInput: a task without a student.
        DataError: a batch of one.
    """

    student_steps = 5

    def __init__(self, task: Task, config: Config) -> None:
        if task.student is None:
            raise MethodInput("method 'dfad'", "no student", "one to work with (--student)")
        self._task, self._config = task, config
        self._student: nn.Module = task.student
        self.steps = config.iterations
        self._generator = InputGenerator(
            task, "dfad", latent=config.latent, width=config.width, batch=config.batch, epsilon=EPSILON
        )
        self._optimizer = torch.optim.Adam(self._generator.network.parameters(), lr=config.lr)
        self._done = 0

    def advance(self) -> float:
        """One step of the generator; its loss is minus the mean absolute difference between the logits."""
        inputs = self._generator.make(self._config.batch)
        theirs = self._task.logits(inputs)
        ours = student_logits(self._student, inputs, theirs.shape, by_batch=True)
        loss = -F.l1_loss(ours, theirs)
        self._done += 1
        value = finite_loss(loss, "dfad", self._done)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return value

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """What the generator now makes of fresh noise; the label is the class that the teacher sees."""
        inputs = self._generator.sample(count)
        with torch.no_grad():
            return inputs, self._task.logits(inputs).argmax(1)


def build(task: Task, config: Config) -> Dfad:
    """The method for ``task``.

    Raises:
        MethodInput: a task without a student.
        DataError: a batch of one.
    """
    return Dfad(task, config)
