"""Looking at a student that is in training, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfmeta.errors import StepError


def student_logits(student: nn.Module, inputs: Tensor, wanted: torch.Size, *, by_batch: bool = False) -> Tensor:
    """``[n, classes]`` what the student says of ``inputs``, differentiable by the inputs alone.

    The student runs in evaluation mode, so that no Dropout draws from torch's global state, and with copies of its
    buffers and with detached parameters, so that neither running statistics nor gradients of it change. Its modes are
    put back.

    Args:
        student: any network.
        inputs: ``[n, *item_shape]``.
        wanted: the shape of the teacher's logits.
        by_batch: whether batch normalisation that is in training mode normalises by this batch, as it does when the
            student trains; else all of it uses the running statistics.

    Raises:
        StepError: a student that does not take such inputs, or does not answer in the teacher's shape.
    """
    state = {name: parameter.detach() for name, parameter in student.named_parameters()}
    state |= {name: buffer.clone() for name, buffer in student.named_buffers()}
    modes = [(module, module.training) for module in student.modules()]
    for module, training in modes:
        module.training = training and by_batch and isinstance(module, _BatchNorm)
    try:
        return answered(student, lambda: torch.func.functional_call(student, state, (inputs,)), inputs, wanted)
    finally:
        for module, training in modes:
            module.training = training


def answered(student: nn.Module, call: Callable[[], Tensor], inputs: Tensor, wanted: torch.Size) -> Tensor:
    """What ``call`` makes of the student, or why the student does not fit.

    Args:
        student: for the message.
        call: runs it on ``inputs``.
        inputs: ``[n, *item_shape]``.
        wanted: the shape of the teacher's logits.

    Raises:
        StepError: it does not take such inputs, or does not answer in the teacher's shape.
    """
    try:
        logits = call()
    except (RuntimeError, ValueError) as error:
        raise StepError(
            f"student {type(student).__name__}",
            f"no way to take inputs {list(inputs.shape[1:])} ({error})",
            "a network that fits the model's input",
            "Choose another student, or pass your own as module:callable.",
        ) from error
    if logits.shape != wanted:
        raise StepError(
            f"student {type(student).__name__}",
            f"outputs {list(logits.shape)}",
            f"the teacher's {list(wanted)}",
            "Choose a student with as many outputs as the teacher.",
        )
    return logits
