"""From a site's values to the feature vectors that kinds count, on both sides of a release."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Features = Literal["flattened", "channel", "patch"]


def feature_vectors(
    value: Tensor, group: Tensor, features: Features, feature_axis: int | None
) -> tuple[Tensor, Tensor]:
    """One row for each sample.

    Args:
        value: ``[n, ...]`` the site's values for one batch.
        group: ``[n]`` int64, each unit's group.
        features: ``flattened``: all axes but the batch are one feature vector; ``channel``: the feature axis
            alone is, and every position is a sample; ``patch``: what a convolution's kernel covers, which the
            kind cuts out itself, so that the value is passed on as it is.
        feature_axis: the channel axis, needed for ``channel``.

    Returns:
        ``[m, d]`` and ``[m]``: m is n, or n times the number of positions. For ``patch``, ``value`` and ``group``.
    """
    if features == "patch":
        return value, group
    if features == "flattened" or feature_axis is None:
        return value.flatten(1), group
    rows = value.movedim(feature_axis, -1)
    positions = math.prod(rows.shape[1:-1])
    return rows.reshape(-1, rows.shape[-1]), group.repeat_interleave(positions)


def positioned(value: Tensor, features: Features, feature_axis: int | None) -> Tensor:
    """The same without a copy: ``[n, *positions, d]``, one group a unit, for kinds that take positions as they are.

    Args:
        value: ``[n, ...]`` the site's values for one batch.
        features: as above; no kind that takes positions takes patches.
        feature_axis: the channel axis, needed for ``channel``.
    """
    if features == "flattened" or feature_axis is None:
        return value.flatten(1)
    return value.movedim(feature_axis, -1)
