"""`distill`: train a student on inputs that come from anywhere, against the teacher's own outputs.

Mean squared error between logits is the default: Kim et al., "Comparing Kullback-Leibler divergence and mean squared
error loss in knowledge distillation", IJCAI 2021, sec. 3, find it the limit of soft targets as the temperature grows,
and better. Every input, shifted ones too, is labelled by the teacher, so that augmentation cannot mislabel. The
student of the last step is the result: there is no data to choose a better one with.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta import _settings
from dfmeta._settings import Range, weight, within
from dfmeta.compress._optimizer import Schedule, make_optimizer
from dfmeta.compress.augment import augmented
from dfmeta.compress.hints import Hints
from dfmeta.errors import Diverged
from dfmeta.synthesis import answered

Source = Callable[[int], Tensor]
Progress = Callable[[str, int, int, float], None]
Watch = Callable[[int, float, nn.Module], None]

KEEP_EVERY = 50
WHERE = "training"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the student's training.

    Attributes:
        steps: optimisation steps; the last one is the result.
        batch: inputs in a step.
        lr: peak of the learning rate.
        shift: images are moved by up to this share of their height and width, edges repeated cyclically.
        flip: whether each image is mirrored with probability one half.
        loss: ``mse`` between logits; ``l1`` between logits; ``kl`` between softened probabilities, times the square of
            the temperature (Hinton et al., arXiv:1503.02531, sec. 2).
        temperature: of ``kl``.
        optimizer: ``adam``, or ``sgd`` with momentum 0.9 and ``weight_decay``.
        weight_decay: of ``sgd``.
        schedule: ``one-cycle``, ``cosine`` from the peak to 0, or ``constant``.
        hints: weight of what the student's layers lack of the teacher's (:mod:`dfmeta.compress.hints`), where it is a
            narrower copy of the teacher; it does nothing elsewhere.
        ema: decay of the average of the weights that becomes the result; 0 takes the weights of the last step.
        seconds: wall-clock limit; the schedule then runs its course in that time or in ``steps``, whichever ends first.
            :func:`dfmeta.pipeline.distill` shares it out to synthesis and training.
    """

    steps: int = 4000
    batch: int = 256
    lr: float = 4e-3
    shift: float = within(0.03, Range(least=0, below=1))
    flip: bool = False
    loss: Literal["mse", "l1", "kl"] = "mse"
    temperature: float = 1.0
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = weight(5e-4)
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    hints: float = weight(0.0)
    ema: float = within(0.0, Range(least=0, below=1))
    seconds: float | None = None


def configured(config: Config, given: Mapping[str, str]) -> Config:
    """``config`` with some fields given as text.

    Raises:
        UnknownName: no such field, or no such choice.
        DataError: text that is no number of the field's type, or one outside its range.
    """
    return _settings.from_text(config, given, WHERE)


def check(config: Config) -> None:
    """Refuse settings that say nothing, with the errors of :func:`distill`."""
    _settings.check(config, WHERE)


@dataclass(frozen=True, slots=True)
class Distilled:
    """What training left.

    Attributes:
        loss: that of the last step: of ``mse``, in units of the teacher's logit variance.
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
    watch: Watch | None = None,
    hints: Hints | None = None,
) -> Distilled:
    """Train ``student`` in place.

    Args:
        student: any network whose output has the teacher's shape.
        teacher: inputs ``[n, ...]`` to logits ``[n, classes]``.
        source: how many inputs to give, to ``[n, ...]`` inputs.
        config: settings.
        generator: source of shifts and flips.
        progress: called with stage, steps done, steps in all, and loss.
        watch: called after each step with the steps done, the seconds passed and the student, which it must leave as
            it was.
        hints: of the very teacher and student, where ``config.hints`` is to count.

    Raises:
        DataError, UnknownName: settings out of range.
        Diverged: the loss is no longer finite.
        StepError: the student does not fit the input or the output.
    """
    check(config)
    # On a CPU, convolutions of few channels take two thirds of the time in this layout.
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(student, config.optimizer, config.lr, config.weight_decay)
    schedule = Schedule(optimizer, config.schedule, config.lr, config.steps, config.seconds)
    kept = _Kept(student, config.ema)
    started, loss, step = time.monotonic(), 0.0, 0
    student.train()
    while not schedule.finished(step):
        schedule.set(step)
        inputs = _by_pixel(augmented(kept.guard(source, config.batch), config.shift, config.flip, generator))
        error = _error(student, teacher, inputs, config, hints)
        loss = float(error.detach())
        if not bool(torch.isfinite(error.detach())):
            raise _diverged(step + 1, kept.restore(), loss)
        kept.keep(step)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        kept.average()
        if progress is not None:
            progress("distill", step, config.steps, loss)
        if watch is not None:
            watch(step, time.monotonic() - started, student)
    kept.finish()
    student.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return Distilled(loss, step)


def _error(
    student: nn.Module, teacher: Callable[[Tensor], Tensor], inputs: Tensor, config: Config, hints: Hints | None
) -> Tensor:
    """What the student gets wrong of a batch."""
    if hints is None or not config.hints:
        with torch.no_grad():
            wanted = teacher(inputs)
        return _loss(answered(student, partial(student, inputs), inputs, wanted.shape), wanted, config)
    with torch.no_grad():
        wanted, theirs = hints.of_teacher(inputs)
    logits, ours = hints.of_student(inputs)
    return _loss(logits, wanted, config) + config.hints * hints.distance(ours, theirs)


def _by_pixel(inputs: Tensor) -> Tensor:
    """Images with the channels of each pixel side by side in memory; anything else is returned unchanged."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _diverged(step: int, kept: int, loss: float) -> Diverged:
    error = Diverged(f"distill, step {step}", f"a loss of {loss}", "a finite number", "Lower the learning rate (--lr).")
    error.step, error.kept = step, kept
    return error


def _loss(logits: Tensor, wanted: Tensor, config: Config) -> Tensor:
    if config.loss == "l1":
        return F.l1_loss(logits, wanted)
    if config.loss == "kl":
        ours, theirs = (F.log_softmax(values / config.temperature, 1) for values in (logits, wanted))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * config.temperature**2
    return F.mse_loss(logits, wanted) / wanted.var().clamp(min=1e-12)


class _Kept:
    """The last weights whose loss was finite, and the running average of all weights where one is wanted."""

    def __init__(self, student: nn.Module, decay: float) -> None:
        self._student, self._decay = student, decay
        self._good: tuple[int, dict[str, Tensor]] | None = None
        self._mean = {name: p.detach().clone() for name, p in student.named_parameters()} if decay else {}
        self._taken = 0

    def guard(self, source: Source, count: int) -> Tensor:
        """Inputs of ``source``; where what makes them diverges, the last good weights are put back too."""
        try:
            return source(count)
        except Diverged as error:
            error.kept = self.restore()
            raise

    def keep(self, step: int) -> None:
        """Remember the weights after ``step`` steps, now and then."""
        if step and step % KEEP_EVERY == 0:
            self._good = step, copy.deepcopy(self._student.state_dict())

    def restore(self) -> int:
        """Put the last good weights back; the step they are of, 0 without any."""
        if self._good is None:
            return 0
        self._student.load_state_dict(self._good[1])
        self._student.eval()
        return self._good[0]

    @torch.no_grad()
    def average(self) -> None:
        """Take the present weights into the mean; early on over few steps, so that the first weights are forgotten."""
        self._taken += 1
        decay = min(self._decay, self._taken / (self._taken + 10))
        for name, parameter in self._student.named_parameters() if self._mean else ():
            self._mean[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def finish(self) -> None:
        """The mean becomes the student's weights."""
        for name, parameter in self._student.named_parameters() if self._mean else ():
            parameter.copy_(self._mean[name])
