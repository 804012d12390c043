"""Eigenpairs: falling, orthonormal, signs fixed, and what they leave out."""

from __future__ import annotations

import numpy as np
import pytest

from dfmeta.numerics import leading_eigenpairs


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_pairs_rebuild_the_leading_part(rank):
    generator = np.random.default_rng(3)
    basis, _ = np.linalg.qr(generator.normal(size=(5, 5)))
    values = np.array([9.0, 4.0, 1.0, 0.25, 0.0])
    found, rows = leading_eigenpairs(basis @ np.diag(values) @ basis.T, rank)
    np.testing.assert_allclose(found, values[:rank], atol=1e-6)
    np.testing.assert_allclose(rows @ rows.T, np.eye(rank), atol=1e-6)
    expected = basis[:, :rank] @ np.diag(values[:rank]) @ basis[:, :rank].T
    np.testing.assert_allclose((rows.T * found) @ rows, expected, atol=1e-5)


def test_signs_do_not_depend_on_the_solver():
    matrix = np.diag([3.0, 2.0])
    _, rows = leading_eigenpairs(matrix, 2)
    np.testing.assert_array_equal(rows, np.eye(2, dtype=np.float32))


def test_rounding_below_zero_is_zero():
    values, _ = leading_eigenpairs(np.diag([1.0, -1e-18]), 2)
    assert values[1] == 0
