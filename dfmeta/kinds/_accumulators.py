"""What every kind's accumulator shares: how its state is taken up again, and what makes it fast."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def restored(owner: object, names: Sequence[str], state: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays as tensors, if they are those that ``owner`` has under ``names``.

    Raises:
        ValueError: missing or further arrays, or another shape or dtype.
    """
    if set(state) != set(names):
        raise ValueError(f"arrays {sorted(state)}, not {sorted(names)}")
    found = {}
    for name in names:
        tensor, wanted = torch.from_numpy(np.array(state[name])), getattr(owner, name)
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise ValueError(f"{name} {tensor.dtype} {list(tensor.shape)}, not {wanted.dtype} {list(wanted.shape)}")
        found[name] = tensor
    return found


def scripted(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function as TorchScript, which runs without Python's lock: threads then do not wait for one another.

    Between two short operations they otherwise do, so much that two threads take longer than one. Where TorchScript
    is gone (torch calls it deprecated) or has no source to read, the function itself does the same, only slower.

    Args:
        function: of tensors and integers, in the part of Python that TorchScript knows.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            compiled: Callable[Parameters, Result] = torch.jit.script(function)
        except (AttributeError, OSError):
            return function
    return compiled
