"""How far a batch of activations is from a `spectrum` record, differentiably."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# A direction that hardly varied would divide by zero: it is given this share of the mean eigenvalue.
EIGENVALUE_FLOOR = 1e-2


def distance(samples: Tensor, group: Tensor, record: Mapping[str, Tensor]) -> Tensor:
    """Squared error of means and standard deviations along the recorded directions, in units of eigenvalues.

    Along its eigenvectors the recorded covariance is diagonal, so its leading part is matched by matching
    one mean and one deviation for each direction; off-diagonal terms are left to the generator.

    Args:
        samples: ``[n, d]`` activations.
        group: ``[n]`` int64, the record's row for each sample.
        record: ``mean [G, d]``, ``eigenvalues [G, k]``, ``eigenvectors [G, k, d]``.

    Returns:
        Scalar: mean over the groups present and their directions; 0 when they agree.
    """
    total = samples.new_zeros(())
    rows = torch.unique(group).tolist()
    for row in rows:
        values = record["eigenvalues"][row]
        kept = values > 0
        values = values[kept]
        if not len(values):
            continue
        along = (samples[group == row] - record["mean"][row]) @ record["eigenvectors"][row][kept].T
        scale = values + EIGENVALUE_FLOOR * values.mean() + torch.finfo(samples.dtype).tiny
        deviation = (along.var(0, unbiased=False) + 1e-8 * scale).sqrt()
        error = along.mean(0).square() + (deviation - values.sqrt()).square()
        total = total + (error / scale).mean()
    return total / len(rows)
