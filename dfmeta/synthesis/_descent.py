"""Inputs moved by gradient descent until a loss of theirs is small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dfmeta.errors import Diverged
from dfmeta.synthesis._contract import Task

# Adam's first steps are ten times as large, and float32 ends at 3e38.
LARGEST_STEP = 3e37


def descend(
    task: Task, start: Tensor, loss_of: Callable[[Tensor], Tensor], iterations: int, step: float, where: str
) -> tuple[Tensor, float]:
    """Adam (Kingma and Ba, arXiv:1412.6980) on the inputs themselves, clipped to their range after each step.

    Args:
        task: whose inputs they are.
        start: ``[n, *item_shape]``; becomes the result.
        loss_of: inputs to a scalar, a sum over the inputs, so that each is moved as if it were alone.
        iterations: how many steps.
        step: Adam's step, in the input's units.
        where: what is being made, for messages.

    Returns:
        The inputs, and the loss before the last step.

    Raises:
        Diverged: a loss that is not finite.
    """
    inputs = start.requires_grad_()
    optimizer = torch.optim.Adam([inputs], lr=min(step, LARGEST_STEP))
    value = 0.0
    for number in range(1, iterations + 1):
        loss = loss_of(inputs)
        value = float(loss.detach())
        if not bool(torch.isfinite(loss.detach())):
            raise _diverged(f"{where}, step {number}", number, value)
        (inputs.grad,) = torch.autograd.grad(loss, inputs)
        optimizer.step()
        with torch.no_grad():
            inputs.copy_(task.clamp(inputs))
    result = inputs.detach()
    if not bool(torch.isfinite(result).all()):
        raise _diverged(f"{where}, step {iterations}", iterations, float("nan"))
    return result, value


def _diverged(where: str, step: int, loss: float) -> Diverged:
    error = Diverged(where, f"a loss of {loss}", "a finite number", "Lower lr (--set lr=...).")
    error.step = step
    return error
