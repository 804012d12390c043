"""Noise of the stated size and shape, and budgets that mean what the literature says they mean."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.zcdp import NoiseSource, epsilon, epsilon_simple, gaussian_sigma, positive_part

BUDGETS = [(rho, delta) for rho in (0.001, 0.05, 0.5, 2.0, 10.0) for delta in (1e-5, 1e-6)]


def delta_by_brute_force(rho, wanted):
    """Corollary 13 of Canonne, Kamath and Steinke, read off on a fine grid of alpha."""
    less = np.logspace(-6, 6, 400_001)
    log = less * ((1 + less) * rho - wanted) - np.log(less) + (1 + less) * np.log(less / (1 + less))
    return math.exp(log.min())


@pytest.mark.parametrize(("rho", "delta"), BUDGETS)
def test_epsilon_solves_the_corollary(rho, delta):
    found = epsilon(rho, delta)
    assert delta_by_brute_force(rho, found) == pytest.approx(delta, rel=1e-4)
    assert found < epsilon_simple(rho, delta)


@pytest.mark.parametrize(("rho", "delta"), BUDGETS)
def test_epsilon_lies_above_that_of_the_gaussian_mechanism(rho, delta):
    """Balle and Wang (arXiv:1805.06530, theorem 8) give the exact delta of one Gaussian mechanism, rho = 1/(2 s^2)."""
    inverse = math.sqrt(2 * rho)

    def normal(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    found = epsilon(rho, delta)
    exact = normal(inverse / 2 - found / inverse) - math.exp(found) * normal(-inverse / 2 - found / inverse)
    assert 0 < exact < delta


@pytest.mark.parametrize(("rho", "delta"), BUDGETS)
def test_epsilon_agrees_with_another_accountant(rho, delta):
    accounting = pytest.importorskip("dp_accounting", reason="needs the extra: pip install 'dfmeta[privacy]'")
    from dp_accounting import rdp

    by_order = rdp.RdpAccountant(orders=list(1 + np.logspace(-3, 4, 2000)))
    by_order.compose(accounting.ZCDpEvent(rho))
    assert epsilon(rho, delta) == pytest.approx(by_order.get_epsilon(delta), rel=1e-5)


@given(st.floats(1e-8, 1e3), st.floats(1e-12, 0.5))
def test_epsilon_is_sound_and_grows_with_rho(rho, delta):
    assert 0 <= epsilon(rho, delta) <= epsilon_simple(rho, delta)
    assert epsilon(rho, delta) <= epsilon(2 * rho, delta)
    assert epsilon(rho, delta) >= epsilon(rho, min(2 * delta, 0.9))


def test_sigma():
    assert gaussian_sigma(3.0, 0.5) == 3.0
    assert gaussian_sigma(1.0, 0.02) == 5.0


@pytest.mark.parametrize("variance", [Fraction(1, 10), Fraction(1, 2), Fraction(9, 4), Fraction(50)])
def test_discrete_gaussian_has_the_probabilities_of_its_definition(variance):
    drawn = NoiseSource(5).discrete_gaussian((20_000,), variance)
    reach = int(8 * math.sqrt(variance)) + 3
    values = np.arange(-reach, reach + 1)
    weight = np.exp(-(values.astype(float) ** 2) / (2 * float(variance)))
    expected = 20_000 * weight / weight.sum()
    counted = np.array([(drawn == value).sum() for value in values])
    often = expected > 5
    distance = ((counted - expected)[often] ** 2 / expected[often]).sum()
    assert distance < often.sum() + 4 * math.sqrt(2 * often.sum()) + 4
    assert counted[~often].sum() <= 5 * (~often).sum()


def test_discrete_gaussian_of_a_large_variance():
    drawn = NoiseSource(6).discrete_gaussian((100, 100), Fraction(10**12, 7)).astype(float)
    assert drawn.shape == (100, 100)
    assert drawn.var() == pytest.approx(10**12 / 7, rel=0.06)
    assert abs(drawn.mean()) < 4 * math.sqrt(10**12 / 7) / 100


def test_symmetric_noise_is_the_gaussian_mechanism_on_half_of_the_matrix():
    source = NoiseSource(7)
    drawn = np.stack([source.symmetric_gaussian(6, 2.0) for _ in range(4000)])
    np.testing.assert_array_equal(drawn, drawn.transpose(0, 2, 1))
    variance = drawn.var(0)
    np.testing.assert_allclose(np.diag(variance), 4.0, rtol=0.12)
    np.testing.assert_allclose(variance[~np.eye(6, dtype=bool)], 2.0, rtol=0.12)


def test_noise_differs_from_call_to_call_and_a_seed_repeats_it():
    first, second = NoiseSource(), NoiseSource()
    assert (first.gaussian((50,), 1.0) != second.gaussian((50,), 1.0)).all()
    assert (first.discrete_gaussian((50,), Fraction(10**9)) != second.discrete_gaussian((50,), Fraction(10**9))).any()
    one, two = (NoiseSource(3).gaussian((50,), 1.0) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_positive_part_is_the_nearest(seed, size):
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(size, size))
    matrix = matrix + matrix.T
    part = positive_part(matrix)
    assert np.linalg.eigvalsh(part).min() > -1e-12
    values = np.linalg.eigvalsh(matrix)
    assert np.linalg.norm(matrix - part) == pytest.approx(np.linalg.norm(values.clip(max=0)), abs=1e-10)
    other = generator.normal(size=(size, size))
    assert np.linalg.norm(matrix - part) <= np.linalg.norm(matrix - other @ other.T) + 1e-10
