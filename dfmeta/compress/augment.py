"""Small changes to a batch of images that keep what they show."""

from __future__ import annotations

import torch
from torch import Tensor


def augmented(inputs: Tensor, share: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Move a batch of ``[n, c, h, w]`` images as one and mirror half of them; anything else is returned unchanged."""
    moved = shift(inputs, share, generator)
    if not flip or inputs.dim() != 4:
        return moved
    mirrored = torch.rand(len(inputs), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored.to(moved.device), moved.flip(3), moved)


def shift(inputs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Move a batch of ``[n, c, h, w]`` images as one, by whole pixels; anything else is returned unchanged."""
    if inputs.dim() != 4:
        return inputs
    reach = [round(share * size) for size in inputs.shape[2:]]
    if not any(reach):
        return inputs
    moves = [int(torch.randint(-most, most + 1, (), generator=generator)) for most in reach]
    return torch.roll(inputs, moves, (2, 3))
