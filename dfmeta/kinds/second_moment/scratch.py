"""Working memory that lasts from one batch to the next: fresh pages cost more than what is computed in them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

# What is larger, as the product of a few thousand features is, is given back after use.
_KEPT_VALUES = 1 << 23


class _Scratch(threading.local):
    """One flat buffer for each purpose, device and type; of each thread its own."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}


_SCRATCH = _Scratch()


def scratch(purpose: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor to write into and to be done with before the same purpose is asked for again.

    Args:
        purpose: what it holds; one tensor of each is in use at a time.
        shape: of the tensor.
        like: has the device, and the type unless ``dtype`` is given.
        dtype: of the tensor.

    Returns:
        ``shape``, contiguous, holding anything.
    """
    kind, size = dtype or like.dtype, math.prod(shape)
    if size > _KEPT_VALUES:
        return torch.empty(*shape, dtype=kind, device=like.device)
    key = (purpose, like.device, kind)
    if key not in _SCRATCH.buffers or _SCRATCH.buffers[key].numel() < size:
        # Kept beyond this call, and so for whoever comes later outside of inference mode.
        with torch.inference_mode(False):
            _SCRATCH.buffers[key] = torch.empty(size, dtype=kind, device=like.device)
    return _SCRATCH.buffers[key][:size].view(*shape)
