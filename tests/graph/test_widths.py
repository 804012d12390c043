"""Widths, columns of channels and the work of each weight's elements, against the graph's own shapes and costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dfmeta.graph import costs, export_module
from dfmeta.graph.channels import Member
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.widths import columns, macs_per_element, width


@given(size=st.integers(1, 500), fraction=st.floats(1e-6, 1.0))
def test_a_width_is_the_fraction_rounded_up(size: int, fraction: float) -> None:
    found = width(size, fraction)
    assert 1 <= found <= size
    assert found >= fraction * size - 1e-6
    assert found - 1 < fraction * size or found == 1


def test_a_tenth_of_thirty_is_three() -> None:
    """Although 0.1 * 30 is above 3 in floating point."""
    assert (width(30, 0.1), width(5, 1.0), width(4, 1e-9)) == (3, 5, 1)


def test_taps_of_a_channel_lie_together() -> None:
    member = Member("w", 1, "consumer", np.array([[1], [3]]))
    assert columns(member, 1).tolist() == [[1], [3]]
    assert columns(member, 4).tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]
    flat = Member("w", 1, "consumer", np.array([[0, 1], [2, 3]]))
    assert columns(flat, 1).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("batch", [True, False])
def test_elements_times_their_use_are_the_work(batch: bool) -> None:
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 4, 3)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 5), nn.Linear(5, 2, bias=False))
    names = {"input_names": ["x"], "output_names": ["y"]}
    graph = folded(export_module(network, (torch.zeros(1, 3, 13, 13),), **names, dynamic_batch=batch))
    found = macs_per_element(graph)
    assert sum(graph.initializers[name].size * uses for name, uses in found.items()) == costs(graph).macs
    assert found["0.weight"] == 36
