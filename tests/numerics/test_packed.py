"""Packed lower triangles: their order, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.numerics.packed import pack, packed_diagonal, packed_size, side_of, unpack


def test_the_order_is_row_by_row():
    matrix = np.array([[1, 2, 4], [2, 3, 5], [4, 5, 6]], np.int8)
    packed = pack(matrix)
    assert packed.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.dtype == np.int8
    assert packed_diagonal(packed).tolist() == [1, 3, 6]
    np.testing.assert_array_equal(unpack(packed), matrix)


@given(side=st.integers(0, 12), lead=st.lists(st.integers(0, 3), max_size=2), seed=st.integers(0, 2**32 - 1))
def test_unpacking_undoes_packing(side, lead, seed):
    matrix = np.random.default_rng(seed).normal(size=(*lead, side, side))
    matrix = matrix + matrix.swapaxes(-2, -1)
    packed = pack(matrix)
    assert packed.shape == (*lead, packed_size(side))
    np.testing.assert_array_equal(unpack(packed), matrix)
    np.testing.assert_array_equal(packed_diagonal(packed), np.diagonal(matrix, axis1=-2, axis2=-1))


@given(side=st.integers(0, 10**9))
def test_the_side_of_a_size(side):
    assert side_of(packed_size(side)) == side


@pytest.mark.parametrize("size", [-1, 2, 4, 5, 7])
def test_no_triangle_has_this_many(size):
    with pytest.raises(ValueError, match=f"{size} entries"):
        side_of(size)


def test_only_square_matrices_are_packed():
    with pytest.raises(ValueError, match=r"\[2, 3\], not of square"):
        pack(np.zeros((2, 3)))
