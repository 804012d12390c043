"""`moments`, version 1: count, mean and variance of each feature, over all units or class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, REAL, TensorLayout, finite, non_negative, zero_where_unobserved

VERSION = 1
# Counts, means and variances of disjoint data combine to those of their union.
MERGEABLE = True
CONVENTIONS = {
    "centering": "central",
    "normalization": "population",
    "accumulation_dtype": "float64",
}


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """The tensors of one record.

    Args:
        features: d, the number of features.
        groups: C, the number of groups, or None for one record over all units.
        configuration: no member of it changes the layout of this kind.

    Returns:
        ``count`` int64 ``[]`` or ``[C]`` (samples: units, or units times positions for channel features),
        ``mean`` and ``var`` float ``[d]`` or ``[C, d]`` in the site's units (squared for ``var``).
    """
    del configuration
    lead = () if groups is None else (groups,)
    return {
        "count": TensorLayout(COUNT, lead),
        "mean": TensorLayout(REAL, (*lead, features)),
        "var": TensorLayout(REAL, (*lead, features)),
    }


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers contradict the kind: non-finite, negative, or filled where unobserved."""
    values = {name: tensors[name] for name in ("mean", "var")}
    return [
        *finite(values, where),
        *non_negative(tensors["count"], f"{where}.count"),
        *non_negative(tensors["var"], f"{where}.var"),
        *zero_where_unobserved(tensors["count"], values, where),
    ]
