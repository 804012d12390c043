"""What every kind's accumulator shares: how its state is taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


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
