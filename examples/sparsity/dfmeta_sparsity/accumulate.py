"""Counting zeros: integers, so that parts merge to the bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta.kinds._accumulators import restored


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an `Accumulator` of these sizes holds."""
    del configuration
    return groups * 8 * (1 + features)


class Accumulator:
    """Samples and zeros seen, for each of `groups` groups."""

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        del configuration
        self.groups = groups
        self.count = torch.zeros(groups, dtype=torch.int64)
        self.zeros = torch.zeros(groups, features, dtype=torch.int64)

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in `[n, d]` samples of the groups `[n]`."""
        self.count += torch.bincount(group, minlength=self.groups)
        self.zeros.index_add_(0, group, (samples == 0).to(torch.int64))

    def merge(self, other: Accumulator) -> None:
        """Take in everything that `other` saw."""
        self.count += other.count
        self.zeros += other.zeros

    def pooled(self) -> Accumulator:
        """One group that holds the sum of all."""
        total = copy.copy(self)
        total.groups = 1
        total.count, total.zeros = self.count.sum(0, keepdim=True), self.zeros.sum(0, keepdim=True)
        return total

    def without(self, groups: Sequence[int]) -> Accumulator:
        """The same to read out, with these groups never observed."""
        left = copy.copy(self)
        left.count, left.zeros = self.count.clone(), self.zeros.clone()
        left.count[list(groups)] = 0
        left.zeros[list(groups)] = 0
        return left

    def state(self) -> dict[str, np.ndarray]:
        """All of it."""
        return {"count": self.count.numpy().copy(), "zeros": self.zeros.numpy().copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what `state` wrote down; ValueError if it does not fit."""
        for name, tensor in restored(self, ("count", "zeros"), state).items():
            setattr(self, name, tensor)

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record."""
        del units, min_units
        return self.state()
