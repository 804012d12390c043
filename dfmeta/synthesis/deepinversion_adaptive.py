"""`deepinversion-adaptive`: `deepinversion` that looks for images on which the student still disagrees.

Yin et al., arXiv:1912.08795, sec. 3.3 and eqs. 5 to 7: the loss gains ``1 - JS(teacher, student)``, the
Jensen-Shannon divergence of the predictions at temperature 3. The student takes part in evaluation mode and is left
as it was (:mod:`dfmeta.synthesis._student_view`). Images and student are made in turns: a batch of images against the
student as it is, then some steps of the student on all images so far. Run on its own, with a student that is trained,
every batch is made against that student.

The divergence is the paper's. The published code takes each Kullback-Leibler term the other way round, of the mean from
the prediction, with probabilities clipped to 0.01 to 0.99.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dfmeta.errors import MethodInput
from dfmeta.synthesis import _inversion
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._inversion import Inversion, jensen_shannon
from dfmeta.synthesis._student_view import student_logits
from dfmeta.synthesis.deepinversion import TRAINING

__all__ = ["TRAINING", "USES", "Config", "build"]

USES = ("student",)
TEMPERATURE = 3.0


@dataclass(frozen=True, slots=True)
class Config(_inversion.Config):
    """Settings: those of `deepinversion`, where ``images`` are how many of the newest are kept, and two more.

    Attributes:
        competition: weight of ``1 - JS`` (the published example's).
        student_steps: the student's steps between two batches of images (ours; the paper does not say).
    """

    competition: float = 0.2
    student_steps: int = 200


class Adaptive(Inversion):
    """The same with a student to compete with.

    Raises:
        MethodInput: a task without a student.
        StepError: neither BatchNormalization nor recorded `moments`.
        DataError: a batch of one.
    """

    def __init__(self, task: Task, config: Config) -> None:
        if task.student is None:
            raise MethodInput("method 'deepinversion-adaptive'", "no student", "one to work with (--student)")
        super().__init__(task, config, "deepinversion-adaptive")
        self._student, self._weight = task.student, config.competition
        self.student_steps = config.student_steps

    def _competition(self, inputs: Tensor, logits: Tensor) -> Tensor:
        ours = student_logits(self._student, inputs, logits.shape)
        return self._weight * (1 - jensen_shannon(ours, logits, TEMPERATURE))


def build(task: Task, config: Config) -> Adaptive:
    """The method for ``task``.

    Raises:
        MethodInput: a task without a student.
        StepError: neither BatchNormalization nor recorded `moments`.
        DataError: a batch of one.
    """
    return Adaptive(task, config)
