"""How far a batch of activations of two sites is from a `cross-spectrum` record, differentiably."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# A pair that hardly varied together would divide by zero: it is given this share of the mean singular value.
SINGULAR_VALUE_FLOOR = 1e-2


def distance(samples: Tensor, group: Tensor, record: Mapping[str, Tensor], paired: Tensor) -> Tensor:
    """Squared error of the covariances along the recorded pairs of directions, in units of singular values.

    Between its left and right singular vectors the recorded cross-covariance is diagonal. The mean product of the
    two projections of a sample, each taken from the recorded mean, should be the singular value; it is, on average,
    for samples of the recorded data and batches of any size, a single sample included. Products of unlike pairs are
    left to the generator. A shift of one site alone is not seen here: `moments` and `spectrum` records are for that.

    Args:
        samples: ``[n, d1]`` activations of the record's site.
        group: ``[n]`` int64, the record's row for each sample.
        record: ``mean [G, d1]``, ``paired_mean [G, d2]``, ``singular_values [G, k]``, ``left [G, k, d1]`` and
            ``right [G, k, d2]``.
        paired: ``[n, d2]`` activations of the paired site for the same units.

    Returns:
        Scalar: mean over the groups present and their pairs; 0 when they agree.
    """
    total = samples.new_zeros(())
    rows = torch.unique(group).tolist()
    for row in rows:
        values = record["singular_values"][row]
        kept = values > 0
        values = values[kept]
        if not len(values):
            continue
        mine = group == row
        along = (samples[mine] - record["mean"][row]) @ record["left"][row][kept].T
        beside = (paired[mine] - record["paired_mean"][row]) @ record["right"][row][kept].T
        scale = values + SINGULAR_VALUE_FLOOR * values.mean() + torch.finfo(samples.dtype).tiny
        total = total + (((along * beside).mean(0) - values) / scale).square().mean()
    return total / len(rows)
