"""A ridge is what it says, in the unit that it says, and no more than it takes."""

from __future__ import annotations

import numpy as np
import pytest

from dfmeta.numerics.damping import damped, factorised, require_moment, ridged, unit


def moment(seed: int, features: int, samples: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((samples, features))
    return x.T @ x / samples


@pytest.mark.parametrize("features", [1, 2, 5, 9])
@pytest.mark.parametrize("samples", [1, 4, 12])
def test_the_factor_is_that_of_the_moment_and_its_ridge(features: int, samples: int) -> None:
    h = moment(3, features, samples)
    found = damped(h, 1e-3)
    wanted = h + found.damping * np.trace(h) / features * np.eye(features)
    np.testing.assert_allclose(found.moment, wanted, rtol=1e-12)
    np.testing.assert_allclose(found.lower @ found.lower.T, wanted, rtol=1e-9, atol=1e-12)
    assert found.damping == 1e-3


def test_what_is_given_stays_as_it_was() -> None:
    h = np.eye(3)
    h.flags.writeable = False
    np.testing.assert_array_equal(ridged(h, 0.5), 1.5 * np.eye(3))
    np.testing.assert_array_equal(h, np.eye(3))


def test_damping_rises_tenfold_until_it_is_enough() -> None:
    h = np.eye(4) - 0.36 * np.ones((4, 4))
    lowest = -np.linalg.eigvalsh(h)[0] / unit(h)
    found = damped(h, 1e-4)
    assert lowest < found.damping <= 10 * lowest
    assert damped(7 * h, 1e-4).damping == found.damping


def test_nothing_is_added_where_nothing_is_needed() -> None:
    assert factorised(np.eye(2), 0.0, 1.0).damping == 0.0
    assert factorised(np.zeros((2, 2)), 0.0, 1.0).damping == 1e-6


def test_the_unit_is_the_mean_of_the_diagonal_and_never_0() -> None:
    assert unit(np.diag([1.0, 3.0])) == 2.0
    assert unit(np.zeros((2, 2))) == unit(np.zeros((0, 0))) == 1.0


@pytest.mark.parametrize("h", [np.full((2, 2), np.nan), np.diag([1.0, np.inf]), np.diag([1.0, -1.0])], ids=str)
def test_what_is_no_moment_is_refused(h: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a moment that is not one"):
        require_moment(h, 0.1)
    with pytest.raises(ValueError, match="a moment that is not one"):
        damped(h)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_that_adds_nothing_is_refused(damping: float) -> None:
    with pytest.raises(ValueError, match="damping"):
        damped(np.eye(2), damping)


def test_a_matrix_that_no_ridge_repairs() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        damped(np.array([[1e-9, 1e9], [1e9, 1e-9]]))
