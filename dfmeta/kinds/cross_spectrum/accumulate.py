"""Streaming cross-covariance of two sites, group by group, in float64: exact, or sketched.

The values of the two sites for one unit are one sample, x beside y. The cross-covariance is the upper right block of
the co-moment of these joined samples, so everything that :class:`dfmeta.kinds._scatter.Scatter` says of
the co-moment holds here; an exact accumulator forms that block alone.

A sketched one keeps rows B of the joined samples for which ``0 <= M - B^T B <= T`` with ``M`` the co-moment. The
off-diagonal block of ``M - B^T B`` is that of ``M - B^T B - T / 2``, whose spectral norm is at most ``T / 2``, and the
norm of a block is at most that of the whole: the cross-covariance that is read off ``B^T B`` is within
``T / (2 count)`` of the true one in spectral norm, and so is every singular value (Weyl). The sites are not scaled
against each other: if the values of one are much larger, they decide the bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.kinds._scatter import UNITS_PER_VECTOR, Scatter, merge_tolerance, scatter_bytes, upper_float32
from dfmeta.numerics.eigen import leading_singular_pairs, product_singular_pairs

Pairs = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

__all__ = ["Accumulator", "accumulator_bytes", "merge_tolerance"]


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an :class:`Accumulator` of these sizes holds for as long as it lives, in bytes."""
    paired = int(configuration["paired_feature_count"])
    return scatter_bytes(features + paired, (features, paired), groups, configuration)


class Accumulator(Scatter):
    """Count, means and centred cross-moment of two sites for each of ``groups`` groups.

    Args:
        features: d1, the width of a sample.
        groups: G, the number of groups; 1 for a record over all units.
        configuration: ``paired_feature_count`` is d2, the width of a sample of the paired site; ``rank`` is k, how
            many pairs of vectors the record keeps; ``sketch``, if it is there, l.
    """

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        paired = int(configuration["paired_feature_count"])
        super().__init__(features, groups, configuration, features + paired, (features, paired))

    def update(self, samples: Tensor, group: Tensor, paired: Tensor) -> None:
        """Take in one batch.

        Args:
            samples: ``[n, d1]``, any float dtype; accumulated in float64.
            group: ``[n]`` int64, the group of each sample.
            paired: ``[n, d2]``, the paired site's values, row by row of the same units (and positions).
        """
        self._take(torch.cat([samples.to(torch.float64), paired.to(torch.float64)], 1), group)

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record, float32 but for ``count``; shapes as in :func:`dfmeta.kinds.cross_spectrum.spec.layout`.

        Args:
            units: ``[G]`` int64, how many units each group holds. A group keeps one pair for each ten of
                them at most, so that no published vector is one unit.
            min_units: least units behind a published extreme; this kind publishes none.
        """
        del min_units
        (height, width), rank = self.block, int(self.configuration["rank"])
        values = np.zeros((self.groups, rank), np.float32)
        left, right = (np.zeros((self.groups, rank, size), np.float32) for size in self.block)
        residual, bound = np.zeros(self.groups, np.float32), np.zeros(self.groups, np.float32)
        for row in torch.nonzero(self.count).flatten().tolist():
            wanted = min(rank, height, width, int(units[row]) // UNITS_PER_VECTOR)
            pairs, residual[row] = self._sketched_pairs(row, wanted) if self.sketched else self._pairs(row, wanted)
            kept = len(pairs[0])
            values[row, :kept], left[row, :kept], right[row, :kept] = pairs
            # Half of what may be missing in any direction of the joined samples: see the text above.
            bound[row] = upper_float32(self.error_bound(row) / 2) if self.sketched else 0
        mean = self.mean.to(torch.float32).numpy()
        return {
            "count": self.count.numpy(),
            "mean": mean[:, :height],
            "paired_mean": mean[:, height:],
            "singular_values": values,
            "left": left,
            "right": right,
            "residual": residual,
            **({"error_bound": bound} if self.sketched else {}),
        }

    def _pairs(self, row: int, kept: int) -> tuple[Pairs, float]:
        matrix = (self.comoment[row] / int(self.count[row])).numpy()
        values, left, right = leading_singular_pairs(matrix, kept)
        return (values, left, right), float(np.linalg.norm(matrix - (left.T * values) @ right))

    def _sketched_pairs(self, row: int, kept: int) -> tuple[Pairs, float]:
        rows = self.sketch(row) / np.sqrt(int(self.count[row]))
        values, left, right = product_singular_pairs(rows[:, : self.block[0]], rows[:, self.block[0] :])
        return (values[:kept], left[:kept], right[:kept]), float(np.linalg.norm(values[kept:]))
