"""Losses that stop being numbers."""

from __future__ import annotations

import math

from torch import Tensor

from dfmeta.errors import Diverged


def finite_loss(loss: Tensor, method: str, step: int) -> float:
    """The loss as a number.

    Args:
        loss: scalar.
        method: what to call the method in the message.
        step: which step this is, from 1.

    Raises:
        Diverged: a loss that is not finite; it names the step.
    """
    value = float(loss.detach())
    if math.isfinite(value):
        return value
    error = Diverged(
        f"{method}, step {step}", f"a loss of {value}", "a finite number", "Lower the method's learning rate (lr)."
    )
    error.step = step
    raise error
