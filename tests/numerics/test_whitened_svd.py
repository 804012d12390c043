"""Low rank in the norm of a moment, against slow sums over samples and against the plain decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.damping import damped
from dfmeta.numerics.whitened_svd import bias_shift, centred, energy, relative_error, whitened_svd

TINY = 1e-13
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**32 - 1)


def samples(seed: int, features: int, count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, features)) @ rng.standard_normal((features, features)) + rng.standard_normal(
        features
    )


def moment(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = x.T @ x / len(x)
    return found


def weight(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed + 1).standard_normal(shape)


def plain(w: np.ndarray, rank: int) -> np.ndarray:
    left, values, right = np.linalg.svd(w, full_matrices=False)
    found: np.ndarray = (left[:, :rank] * values[:rank]) @ right[:rank]
    return found


def by_cholesky(w: np.ndarray, h: np.ndarray, rank: int) -> np.ndarray:
    """The textbook's way: whiten, cut off, whiten back."""
    lower = np.linalg.cholesky(h)
    return np.linalg.solve(lower.T, plain(w @ lower, rank).T).T


def error_over(x: np.ndarray, w: np.ndarray, other: np.ndarray) -> float:
    """Squared error, sample by sample."""
    total = 0.0
    for row in x:
        for one, two in zip(w, other, strict=True):
            total += (float(one @ row) - float(two @ row)) ** 2
    return total / len(x)


@given(seed=seeds, shape=sizes)
@settings(deadline=None)
def test_every_rank_is_that_of_whitening_by_a_cholesky_factor(seed: int, shape: tuple[int, int]) -> None:
    x, w = samples(seed, shape[1]), weight(seed, shape)
    h = moment(x)
    found = whitened_svd(w, h, TINY)
    for rank in range(1, min(shape) + 1):
        outer, inner = found.factors(rank)
        expected = error_over(x, w, by_cholesky(w, h, rank))
        scale = energy(w, h)
        assert error_over(x, w, outer @ inner) == pytest.approx(expected, rel=1e-5, abs=1e-8 * scale)
        assert found.errors[rank] * scale == pytest.approx(expected, rel=1e-5, abs=1e-8 * scale)


@given(seed=seeds, shape=sizes, data=st.data())
@settings(deadline=None)
def test_never_worse_than_the_plain_decomposition(seed: int, shape: tuple[int, int], data: st.DataObject) -> None:
    h, w = moment(samples(seed, shape[1])), weight(seed, shape)
    rank = data.draw(st.integers(1, min(shape)))
    outer, inner = whitened_svd(w, h).factors(rank)
    # What damping may cost: itself, on what the plain one leaves.
    allowed = 1e-6 * np.diagonal(h).mean() * np.square(w).sum()
    assert energy(w - outer @ inner, h) <= energy(w - plain(w, rank), h) + allowed


@given(seed=seeds, shape=sizes)
@settings(deadline=None)
def test_full_rank_is_exact_and_errors_never_rise(seed: int, shape: tuple[int, int]) -> None:
    w, h = weight(seed, shape), moment(samples(seed, shape[1], count=3))
    found = whitened_svd(w, h)
    outer, inner = found.factors(min(shape))
    np.testing.assert_allclose(outer @ inner, w, atol=1e-9)
    np.testing.assert_allclose(outer.T @ outer, np.eye(min(shape)), atol=1e-10)
    assert found.errors[0] == 1
    assert found.errors[-1] == 0
    assert (np.diff(found.errors) <= 0).all()


@given(seed=seeds, shape=sizes)
@settings(deadline=None)
def test_the_identity_gives_the_plain_decomposition(seed: int, shape: tuple[int, int]) -> None:
    w = weight(seed, shape)
    found = whitened_svd(w, np.eye(shape[1]))
    values = np.linalg.svd(w, compute_uv=False)
    np.testing.assert_allclose(found.energies, values**2, rtol=1e-6, atol=1e-9 * values[0] ** 2)
    gap = np.diff(values, append=0.0) ** 2
    for rank in range(1, min(shape) + 1):
        if gap[rank - 1] > 1e-4:
            outer, inner = found.factors(rank)
            np.testing.assert_allclose(outer @ inner, plain(w, rank), atol=1e-6)


def test_what_the_moment_does_not_see_is_decided_by_the_numbers() -> None:
    """Three samples of eight features: beyond rank 3 any choice has the same error, and the plain one is taken."""
    x, w = samples(5, 8, count=3), weight(5, (6, 8))
    found = whitened_svd(w, moment(x))
    assert found.damping == 1e-6
    assert found.errors[3] == pytest.approx(0, abs=1e-10)
    # Outputs that the samples never reach, largest first.
    rest = w - found.factors(3)[0] @ found.factors(3)[1]
    values = np.linalg.svd(rest, compute_uv=False)
    for rank in (4, 5):
        outer, inner = found.factors(rank)
        assert np.square(w - outer @ inner).sum() == pytest.approx(np.square(values[rank - 3 :]).sum(), rel=1e-3)


def test_a_map_that_never_sees_anything_is_decomposed_plainly() -> None:
    w = weight(6, (4, 5))
    found = whitened_svd(w, np.zeros((5, 5)))
    outer, inner = found.factors(2)
    np.testing.assert_allclose(outer @ inner, plain(w, 2), atol=1e-9)
    assert relative_error(w, outer @ inner, np.zeros((5, 5))) == 0


def test_a_moment_with_negative_eigenvalues_is_damped_and_the_amount_is_told() -> None:
    h = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    assert np.linalg.eigvalsh(h)[0] == pytest.approx(-0.8)
    found = damped(h)
    assert found.damping == pytest.approx(1.0)
    np.testing.assert_allclose(found.moment, h + np.eye(3))
    svd = whitened_svd(weight(7, (4, 3)), h)
    assert svd.damping == found.damping
    assert (svd.energies >= 0).all()
    assert damped(4 * h).damping == pytest.approx(found.damping)


def test_the_bias_takes_up_the_mean() -> None:
    """Of all constants, the shifted one leaves the least error, and that error is the covariance's."""
    x, w = samples(8, 5), weight(8, (4, 5))
    h, mean = moment(x), x.mean(0)
    np.testing.assert_allclose(centred(h, mean), np.cov(x.T, bias=True), atol=1e-12)
    outer, inner = whitened_svd(w, centred(h, mean), TINY).factors(2)
    shift = bias_shift(w, outer @ inner, mean)
    left = x @ (w - outer @ inner).T
    np.testing.assert_allclose(shift, left.mean(0), atol=1e-12)
    affine = np.square(left - shift).sum(1).mean()
    assert affine == pytest.approx(energy(w - outer @ inner, centred(h, mean)))
    plain_outer, plain_inner = whitened_svd(w, h, TINY).factors(2)
    assert affine < np.square(x @ (w - plain_outer @ plain_inner).T).sum(1).mean()


def test_the_errors_are_those_of_the_factors() -> None:
    w, h = weight(9, (5, 6)), moment(samples(9, 6))
    found = whitened_svd(w, h)
    for rank in range(1, 6):
        outer, inner = found.factors(rank)
        assert relative_error(w, outer @ inner, h) == pytest.approx(found.errors[rank], abs=1e-12)


@pytest.mark.parametrize(
    ("w", "h"),
    [
        (np.ones((2, 3)), np.eye(2)),
        (np.ones(3), np.eye(3)),
        (np.ones((2, 2)), np.array([[1.0, np.nan], [np.nan, 1.0]])),
        (np.ones((2, 2)), np.diag([1.0, -1.0])),
        (np.ones((2, 2)), np.array([[0.0, 1e30], [1e30, 0.0]])),
    ],
)
def test_what_is_no_moment_is_refused(w: np.ndarray, h: np.ndarray) -> None:
    with pytest.raises(ValueError, match="moment"):
        whitened_svd(w, h)


@pytest.mark.parametrize("rank", [0, 4, -1])
def test_ranks_out_of_range(rank: int) -> None:
    with pytest.raises(ValueError, match=r"not within 1\.\.3"):
        whitened_svd(weight(0, (3, 5)), np.eye(5)).factors(rank)


def test_no_damping_is_refused() -> None:
    with pytest.raises(ValueError, match="damping 0"):
        damped(np.eye(2), 0.0)
