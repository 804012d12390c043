"""EVBMF: ranks of planted signals, and a plain iterative solution of the same model beside the analytic one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.vbmf import _least_signal, evbmf

# The free energy is flat where it is least: rounding moves that place by its root, and by more in small matrices.
TOLERANCE = 1e-5


def planted(seed, shape, strengths, noise):
    """A signal with these singular values in normal noise; the noise's largest is about sqrt(m) + sqrt(n)."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(side, len(strengths))))[0] for side in shape)
    return left @ np.diag(strengths) @ right.T + noise * generator.normal(size=shape)


def iterated(matrix, rounds=4000):
    """The same posterior by coordinate descent from the singular value decomposition; no formula of the module.

    ``V = B A^T + noise``: mean and covariance of the rows of both factors, the prior variance of each column, and the
    noise's variance, each in turn set to what is best for the others.
    """
    height, width = matrix.shape
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    a, b = right.T * np.sqrt(values), left * np.sqrt(values)
    cov_b = 1e-2 * np.eye(len(values))
    prior_a = prior_b = np.ones(len(values))
    noise = float(np.mean(matrix**2)) / 2
    for _ in range(rounds):
        cov_a = noise * np.linalg.inv(b.T @ b + height * cov_b + noise * np.diag(1 / prior_a))
        a = matrix.T @ b @ cov_a / noise
        cov_b = noise * np.linalg.inv(a.T @ a + width * cov_a + noise * np.diag(1 / prior_b))
        b = matrix @ a @ cov_b / noise
        prior_a = (a**2).sum(0) / width + np.diag(cov_a)
        prior_b = (b**2).sum(0) / height + np.diag(cov_b)
        crossed = (a.T @ a + width * cov_a) @ (b.T @ b + height * cov_b)
        noise = ((matrix**2).sum() - 2 * np.sum(matrix * (b @ a.T)) + np.trace(crossed)) / matrix.size
    return np.linalg.svd(b @ a.T, compute_uv=False), noise


@pytest.mark.parametrize(("shape", "strengths"), [((20, 30), (40, 25)), ((30, 20), (60, 40, 30)), ((25, 25), (50,))])
def test_the_analytic_solution_is_that_of_coordinate_descent(shape, strengths):
    matrix = planted(1, shape, strengths, 1.0)
    expected, noise = iterated(matrix)
    found = evbmf(matrix)
    assert found.rank == len(strengths)
    np.testing.assert_allclose(found.values, expected[: found.rank], rtol=1e-5)
    np.testing.assert_allclose(expected[found.rank :], 0, atol=1e-3)
    # The descent nears the noise's variance by the inverse of its rounds only.
    assert found.noise == pytest.approx(noise, rel=3e-4)


@pytest.mark.parametrize("shape", [1.0, 0.5, 0.04, 1e-3])
def test_at_the_threshold_keeping_costs_as_much_as_dropping(shape):
    """What a kept value adds to the free energy, written out, changes its sign there."""
    costs = []
    for share in (0.999, 1.0, 1.001):
        x = share * _least_signal(shape)
        tau = (x - (1 + shape) + np.sqrt((x - (1 + shape)) ** 2 - 4 * shape)) / 2
        costs.append(np.log(1 + tau) + shape * np.log(1 + tau / shape) - tau)
    assert costs[0] > 1e-7
    assert costs[1] == pytest.approx(0, abs=1e-12)
    assert costs[2] < -1e-7


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("shape", "rank"), [((16, 150), 3), ((120, 400), 9), ((64, 64), 5), ((200, 50), 1)])
def test_a_planted_rank_is_found(seed, shape, rank):
    edge = sum(np.sqrt(shape))
    strengths = np.linspace(2.0, 5.0, rank) * edge
    found = evbmf(planted(seed, shape, strengths, 1.0))
    assert found.rank == rank
    assert found.noise == pytest.approx(1.0, rel=0.08)
    np.testing.assert_allclose(found.values, strengths[::-1], rtol=0.12)
    assert (np.diff(found.values) <= 0).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(16, 150), (120, 400), (64, 64), (200, 50), (6, 400)])
def test_noise_has_rank_0(seed, shape):
    found = evbmf(np.random.default_rng(seed).normal(size=shape))
    assert found.rank == 0
    assert found.noise == pytest.approx(1.0, rel=0.1)


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    scale=st.sampled_from([1e-30, 1e-3, 3.0, 1e8, 1e100]),
)
@settings(max_examples=60, deadline=None)
def test_transposed_and_scaled(seed, height, width, scale):
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(height, 1)) @ generator.normal(size=(1, width)) * 9
    matrix += generator.normal(size=(height, width)) * 0.3
    plain, turned, scaled = evbmf(matrix), evbmf(matrix.T), evbmf(scale * matrix)
    assert plain.rank == turned.rank == scaled.rank
    np.testing.assert_allclose(turned.values, plain.values, rtol=TOLERANCE)
    np.testing.assert_allclose(scaled.values, scale * plain.values, rtol=TOLERANCE)
    assert turned.noise == pytest.approx(plain.noise, rel=TOLERANCE)
    assert scaled.noise == pytest.approx(scale**2 * plain.noise, rel=TOLERANCE)


def test_without_noise_every_singular_value_stays():
    found = evbmf(planted(0, (12, 20), (9.0, 4.0, 1e-3), 0.0))
    assert found.rank == 3
    np.testing.assert_allclose(found.values, (9.0, 4.0, 1e-3), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 4), (1, 1), (1, 9)])
def test_nothing_has_rank_0(shape):
    found = evbmf(np.zeros(shape))
    assert (found.rank, found.noise) == (0, 0.0)


def test_one_row_cannot_be_told_from_noise():
    assert evbmf(np.arange(1.0, 9.0)[None]).rank == 0
