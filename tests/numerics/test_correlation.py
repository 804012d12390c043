"""Correlations of few bits, and matrices made positive semi-definite again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.numerics.correlation import correlations, decoded, encoded, from_correlations, repaired


def semidefinite(seed: int, side: int, rank: int) -> np.ndarray:
    """Of features whose scales lie far apart."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(rank, side)) * 10.0 ** generator.integers(-6, 6, side)
    return rows.T @ rows


def smallest(matrix: np.ndarray) -> float:
    """Smallest eigenvalue of the correlation matrix."""
    return float(np.linalg.eigvalsh(correlations(matrix, np.diagonal(matrix))).min())


def test_correlations_of_a_matrix():
    matrix = np.array([[4.0, 3, 0], [3, 9, 0], [0, 0, 0]])
    found = correlations(matrix, np.diagonal(matrix))
    np.testing.assert_allclose(found, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(from_correlations(found, np.diagonal(matrix)), matrix)


@pytest.mark.parametrize(("dtype", "step"), [("float16", 2**-12), ("int8", 0.5 / 127)])
def test_coding_is_within_half_a_step(dtype, step):
    values = np.linspace(-1.5, 1.5, 1001)
    coded = encoded(values, dtype)
    assert coded.dtype == dtype
    assert np.abs(decoded(coded) - values.clip(-1, 1)).max() <= step * (1 + 1e-9)


@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 8), rank=st.integers(1, 8))
def test_a_rounded_matrix_is_made_semidefinite_with_its_own_diagonal(seed, side, rank):
    matrix = semidefinite(seed, side, rank)
    diagonal = np.diagonal(matrix)
    rounded = from_correlations(decoded(encoded(correlations(matrix, diagonal), "int8")), diagonal)
    found = repaired(rounded)
    np.testing.assert_allclose(np.diagonal(found), diagonal, rtol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    assert smallest(found) >= -1e-12 * side
    error = correlations(found - matrix, diagonal)
    assert np.abs(error).max() <= 2 * side / 127


def test_rounding_does_leave_negative_eigenvalues():
    """Otherwise the test above shows nothing."""
    matrix = semidefinite(0, 8, 2)
    rounded = decoded(encoded(correlations(matrix, np.diagonal(matrix)), "int8"))
    assert np.linalg.eigvalsh(rounded).min() < -1e-3


def test_what_is_semidefinite_stays_as_it_is():
    matrix = semidefinite(1, 6, 9)
    np.testing.assert_array_equal(repaired(matrix), matrix)


def test_a_singular_matrix_and_features_that_were_always_zero_stay_as_they_are():
    matrix = np.outer([1.0, 0, 2, 1e-6], [1.0, 0, 2, 1e-6])
    np.testing.assert_array_equal(repaired(matrix), matrix)
    np.testing.assert_array_equal(repaired(np.zeros((3, 3))), np.zeros((3, 3)))


def test_an_impossible_correlation_is_cut_back():
    found = repaired(np.array([[4.0, 12], [12, 9]]))
    np.testing.assert_allclose(found, [[4, 6], [6, 9]])
