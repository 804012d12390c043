"""Streaming covariance, group by group, in float64: exact, or sketched where d x d numbers are too many.

How it is gathered is :mod:`dfmeta.kinds._scatter`'s; what is read out of it is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.kinds._scatter import UNITS_PER_VECTOR, Scatter, merge_tolerance, scatter_bytes, upper_float32
from dfmeta.numerics.eigen import leading_eigenpairs, row_eigenpairs

__all__ = ["Accumulator", "accumulator_bytes", "merge_tolerance"]


def accumulator_bytes(features: int, groups: int, configuration: Mapping[str, Any]) -> int:
    """Memory that an :class:`Accumulator` of these sizes holds for as long as it lives, in bytes."""
    return scatter_bytes(features, (features, features), groups, configuration)


class Accumulator(Scatter):
    """Count, mean and centred co-moment of the features for each of ``groups`` groups.

    Args:
        features: d, the width of a sample.
        groups: G, the number of groups; 1 for a record over all units.
        configuration: ``rank`` is k, how many eigenpairs the record keeps; ``sketch``, if it is there, l.
    """

    def __init__(self, features: int, groups: int, configuration: Mapping[str, Any]) -> None:
        super().__init__(features, groups, configuration, features, (features, features))

    def update(self, samples: Tensor, group: Tensor) -> None:
        """Take in one batch.

        Args:
            samples: ``[n, d]``, any float dtype; accumulated in float64.
            group: ``[n]`` int64, the group of each sample.
        """
        self._take(samples, group)

    def tensors(self, units: Tensor, min_units: int) -> dict[str, np.ndarray]:
        """The record, float32 but for ``count``; shapes as in :func:`dfmeta.kinds.spectrum.spec.layout`.

        Args:
            units: ``[G]`` int64, how many units each group holds. A group keeps one pair for each ten of
                them at most, so that no published vector is one unit.
            min_units: least units behind a published extreme; this kind publishes none.
        """
        del min_units
        rank = int(self.configuration["rank"])
        values = np.zeros((self.groups, rank), np.float32)
        vectors = np.zeros((self.groups, rank, self.features), np.float32)
        residual, bound = np.zeros(self.groups, np.float32), np.zeros(self.groups, np.float32)
        for row in torch.nonzero(self.count).flatten().tolist():
            found = self._eigenpairs(row, min(rank, self.features, int(units[row]) // UNITS_PER_VECTOR))
            kept = len(found[0])
            values[row, :kept], vectors[row, :kept] = found
            trace = self.trace[row] if self.sketched else self.comoment[row].trace()
            residual[row] = max(float(trace) / int(self.count[row]) - float(values[row].sum(dtype=np.float64)), 0.0)
            bound[row] = upper_float32(self.error_bound(row)) if self.sketched else 0
        return {
            "count": self.count.numpy(),
            "mean": self.mean.to(torch.float32).numpy(),
            "eigenvalues": values,
            "eigenvectors": vectors,
            "residual_trace": residual,
            **({"error_bound": bound} if self.sketched else {}),
        }

    def _eigenpairs(self, row: int, kept: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = int(self.count[row])
        if not self.sketched:
            return leading_eigenpairs((self.comoment[row] / count).numpy(), kept)
        rows = self.sketch(row) / math.sqrt(count)
        return row_eigenpairs(rows, min(kept, len(rows)))
