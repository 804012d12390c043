"""`distill`: train a student on inputs that come from anywhere, against the teacher's own outputs.

Mean squared error between logits: Kim et al., "Comparing Kullback-Leibler divergence and mean squared error loss
in knowledge distillation", IJCAI 2021, sec. 3, find it the limit of soft targets as the temperature grows, and
better. Every input, shifted ones too, is labelled by the teacher, so that augmentation cannot mislabel. The
student of the last step is the result: there is no data to choose a better one with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta.errors import StepError

Source = Callable[[int], Tensor]
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the student's training.

    Attributes:
        steps: optimisation steps; the last one is the result.
        batch: inputs in a step.
        lr: peak of the one-cycle schedule (Adam).
        shift: images are moved by up to this share of their height and width, edges repeated cyclically.
    """

    steps: int = 4000
    batch: int = 256
    lr: float = 4e-3
    shift: float = 0.03


@dataclass(frozen=True, slots=True)
class Distilled:
    """What training left.

    Attributes:
        loss: mean squared error of the last step, in units of the teacher's logit variance.
        steps: how many steps were taken.
    """

    loss: float
    steps: int


def distill(
    student: nn.Module,
    teacher: Callable[[Tensor], Tensor],
    source: Source,
    config: Config,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Distilled:
    """Train ``student`` in place.

    Args:
        student: any network whose output has the teacher's shape.
        teacher: inputs ``[n, ...]`` to logits ``[n, classes]``.
        source: how many inputs to give, to ``[n, ...]`` inputs.
        config: settings.
        generator: source of the shifts.
        progress: called with stage, steps done, steps in all, and loss.

    Raises:
        StepError: the student does not fit the input or the output, or the loss is no longer finite.
    """
    if config.steps < 1 or config.batch < 1:
        raise StepError("distill", f"{config.steps} steps of {config.batch}", "at least one of each")
    optimizer = torch.optim.Adam(student.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps + 1)
    student.train()
    loss = 0.0
    for step in range(config.steps):
        inputs = shift(source(config.batch), config.shift, generator)
        with torch.no_grad():
            wanted = teacher(inputs)
        error = F.mse_loss(_forward(student, inputs, wanted), wanted) / wanted.var().clamp(min=1e-12)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        loss = float(error.detach())
        if not torch.isfinite(error.detach()):
            raise StepError(f"distill, step {step + 1}", "a loss that is not finite", "a number", "Lower lr.")
        if progress is not None:
            progress("distill", step + 1, config.steps, loss)
    student.eval()
    return Distilled(loss, config.steps)


def shift(inputs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Move a batch of ``[n, c, h, w]`` images as one, by whole pixels; anything else is returned unchanged."""
    if inputs.dim() != 4:
        return inputs
    reach = [round(share * size) for size in inputs.shape[2:]]
    if not any(reach):
        return inputs
    moves = [int(torch.randint(-most, most + 1, (), generator=generator)) for most in reach]
    return torch.roll(inputs, moves, (2, 3))


def _forward(student: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
    try:
        logits: Tensor = student(inputs)
    except (RuntimeError, ValueError) as error:
        raise StepError(
            f"student {type(student).__name__}",
            f"no way to take inputs {list(inputs.shape[1:])} ({error})",
            "a network that fits the model's input",
            "Choose another student, or pass your own as module:callable.",
        ) from error
    if logits.shape != wanted.shape:
        raise StepError(
            f"student {type(student).__name__}",
            f"outputs {list(logits.shape)}",
            f"the teacher's {list(wanted.shape)}",
            "Choose a student with as many outputs as the teacher.",
        )
    return logits
