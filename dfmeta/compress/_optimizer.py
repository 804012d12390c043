"""Optimisers by name, and learning rates that follow the share of the training done, in steps or in time."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

# Smith and Topin, "Super-Convergence", arXiv:1708.07120; the numbers are torch.optim.lr_scheduler.OneCycleLR's.
RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 25e4
MOMENTA = (0.95, 0.85)


def make_optimizer(student: nn.Module, name: str, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum 0.9."""
    if name == "sgd":
        return torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.Adam(student.parameters(), lr=lr)


class Schedule:
    """Sets an optimiser's rate before each step.

    Args:
        optimizer: whose groups are set.
        name: ``one-cycle``, ``cosine`` or ``constant``.
        peak: greatest learning rate.
        steps: how many there will be at most.
        seconds: how long they may take, from now on; None for as long as they take.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, name: str, peak: float, steps: int, seconds: float | None
    ) -> None:
        self._optimizer, self._name, self._peak = optimizer, name, peak
        self._steps, self._seconds = steps, seconds
        self._started = time.monotonic()

    def finished(self, step: int) -> bool:
        """Whether ``step`` steps are all, or time is up; there is at least one."""
        return step >= self._steps or (step > 0 and self._spent() >= 1)

    def set(self, step: int) -> None:
        """Set the rate for the step after ``step`` steps."""
        share = max(step / self._steps, self._spent())
        rate, momentum = self._rate(min(share, 1.0))
        for group in self._optimizer.param_groups:
            group["lr"] = self._peak * rate
            if momentum is not None:
                self._set_momentum(group, momentum)

    def _spent(self) -> float:
        return 0.0 if self._seconds is None else (time.monotonic() - self._started) / self._seconds

    def _rate(self, share: float) -> tuple[float, float | None]:
        if self._name == "constant":
            return 1.0, None
        if self._name == "cosine":
            return _between(1.0, 0.0, share), None
        high, low = MOMENTA
        if share <= RISE:
            return _between(FIRST, 1.0, share / RISE), _between(high, low, share / RISE)
        fall = (share - RISE) / (1 - RISE)
        return _between(1.0, LAST, fall), _between(low, high, fall)

    @staticmethod
    def _set_momentum(group: dict[str, object], momentum: float) -> None:
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])  # type: ignore[index]
        else:
            group["momentum"] = momentum


def _between(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
