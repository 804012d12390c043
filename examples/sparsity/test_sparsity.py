"""The laws that every record kind obeys, over this one."""

from __future__ import annotations

import pytest
import torch
from dfmeta_sparsity.accumulate import Accumulator

from dfmeta.testing import KindCase, KindContract


@pytest.mark.parametrize("case", [KindCase("sparsity", features=5, tolerance=0)], ids=str)
class TestSparsity(KindContract):
    """Each method of the contract is a test."""


def test_it_counts_zeros():
    made = Accumulator(2, 1, {})
    made.update(torch.tensor([[0.0, 1.0], [0.0, -0.0], [2.0, 3.0]]), torch.zeros(3, dtype=torch.int64))
    assert made.tensors(made.count, 1)["zeros"].tolist() == [[2, 1]]
