"""Covariances from every form of second moment, against covariances that are put into that form themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.kinds.second_moment.centring import centred

KERNELS = [(3, 3), (1, 1), (2, 3), (3,), (2, 2, 2)]


def samples(seed: int, channels: int, taps: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((300, channels * taps))
    return x @ rng.standard_normal((channels * taps, channels * taps)) + 3 * rng.standard_normal(channels * taps)


def covariance(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.cov(x.T, bias=True).reshape(x.shape[1], x.shape[1])
    return found


def by_lags(matrix: np.ndarray, channels: int, kernel: tuple[int, ...]) -> np.ndarray:
    """Each entry replaced by the mean of all those of the same two channels and the same distance of taps."""
    places = list(itertools.product(*map(range, kernel)))
    whole = matrix.reshape(channels, len(places), channels, len(places))
    found = np.empty_like(whole)
    for (s, one), (t, other) in itertools.product(enumerate(places), repeat=2):
        same = [
            whole[:, u, :, v]
            for (u, first), (v, second) in itertools.product(enumerate(places), repeat=2)
            if np.subtract(second, first).tolist() == np.subtract(other, one).tolist()
        ]
        found[:, s, :, t] = np.mean(same, axis=0)
    return found.reshape(matrix.shape)


def by_factors(matrix: np.ndarray, channels: int, taps: int) -> np.ndarray:
    whole = matrix.reshape(channels, taps, channels, taps)
    across = sum(whole[:, t, :, t] for t in range(taps)) / taps
    within = sum(whole[i, :, i] for i in range(channels))
    found: np.ndarray = np.kron(across, within * taps / np.trace(within))
    return found


@given(seed=st.integers(0, 99), kernel=st.sampled_from(KERNELS))
@settings(max_examples=25, deadline=None)
def test_every_form_is_that_of_the_covariance(seed: int, kernel: tuple[int, ...]) -> None:
    taps = int(np.prod(kernel))
    x = samples(seed, 3, taps)
    moment, mean, expected = x.T @ x / len(x), x.mean(0), covariance(x)
    tolerance = {"rtol": 1e-8, "atol": 1e-8 * float(np.trace(moment))}
    np.testing.assert_allclose(centred(moment, mean, "full"), expected, **tolerance)
    np.testing.assert_allclose(
        centred(np.diag(np.diagonal(moment)), mean, "diagonal"), np.diag(np.diagonal(expected)), **tolerance
    )
    found = centred(by_factors(moment, 3, taps), mean, "kronecker", kernel)
    np.testing.assert_allclose(found, by_factors(expected, 3, taps), **tolerance)
    found, wanted = centred(by_lags(moment, 3, kernel), mean, "toeplitz", kernel), by_lags(expected, 3, kernel)
    np.testing.assert_allclose(np.diagonal(found), np.diagonal(wanted), **tolerance)
    if np.linalg.eigvalsh(wanted)[0] > 0:
        np.testing.assert_allclose(found, wanted, **tolerance)
    assert np.linalg.eigvalsh(found)[0] > -1e-9 * np.trace(found)


@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker", "diagonal"])
def test_constants_have_no_covariance(form: str) -> None:
    mean = np.repeat([2.0, -1.0], 4)
    moment = np.outer(mean, mean) if form != "diagonal" else np.diag(np.square(mean))
    np.testing.assert_allclose(centred(moment, mean, form, (2, 2)), np.zeros((8, 8)), atol=1e-12)


@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker", "diagonal"])
def test_a_mean_that_contradicts_the_moment_leaves_no_negative_variance(form: str) -> None:
    found = centred(np.eye(8), np.full(8, 2.0), form, (2, 2))
    assert np.diagonal(found).min() >= 0
    assert np.isfinite(found).all()
