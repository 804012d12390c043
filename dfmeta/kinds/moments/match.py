"""How far a batch of activations is from a `moments` record, differentiably."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# A feature that never varied would divide by zero: it is given this share of the mean variance of its site.
VARIANCE_FLOOR = 5e-2


def distance(samples: Tensor, group: Tensor, record: Mapping[str, Tensor]) -> Tensor:
    """Squared error of the batch's means and standard deviations, in units of the recorded variance.

    Each group's batch statistics meet that group's row, as with the class-wise centres of FDDA
    (arXiv:2109.04186); standard deviations
    rather than variances, so that one wild feature does not drown the others.

    Args:
        samples: ``[n, d]`` activations.
        group: ``[n]`` int64, the record's row for each sample.
        record: ``mean`` and ``var``, ``[G, d]``.

    Returns:
        Scalar: mean over the groups present and their features; 0 when they agree.
    """
    total = samples.new_zeros(())
    rows = torch.unique(group).tolist()
    for row in rows:
        part = samples[group == row]
        mean, variance = record["mean"][row], record["var"][row]
        scale = variance + VARIANCE_FLOOR * variance.mean() + torch.finfo(samples.dtype).tiny
        deviation = (part.var(0, unbiased=False) + 1e-8 * scale).sqrt()
        error = (part.mean(0) - mean).square() + (deviation - variance.sqrt()).square()
        total = total + (error / scale).mean()
    return total / len(rows)
