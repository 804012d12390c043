"""`sparsity`, version 1: how often each feature is exactly zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfmeta.errors import Problem
from dfmeta.kinds._contract import COUNT, TensorLayout, non_negative, zero_where_unobserved

VERSION = 1
MERGEABLE = True
CONVENTIONS = {"accumulation_dtype": "int64"}


def layout(features: int, groups: int | None, configuration: Mapping[str, Any]) -> dict[str, TensorLayout]:
    """`count` int64 `[]` and `zeros` int64 `[d]`, with a leading axis when grouped."""
    del configuration
    lead = () if groups is None else (groups,)
    return {"count": TensorLayout(COUNT, lead), "zeros": TensorLayout(COUNT, (*lead, features))}


def check(tensors: Mapping[str, np.ndarray], where: str) -> list[Problem]:
    """Every way in which the numbers cannot be true."""
    count, zeros = tensors["count"], tensors["zeros"]
    found = [*non_negative(count, f"{where}.count"), *non_negative(zeros, f"{where}.zeros")]
    if (zeros > count[..., None]).any():
        found.append(Problem(f"{where}.zeros", "out-of-range", "more zeros than samples", "at most count"))
    return [*found, *zero_where_unobserved(count, {"zeros": zeros}, where)]
