"""Tucker-2: exact at full ranks, orthonormal, within the known bounds, and never worse for another iteration."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.tucker import limits, tucker2, tucker2_ranks


def random_kernel(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def error(kernel, factors):
    return float(np.sum((kernel - factors.kernel()) ** 2))


def tails(kernel, rank_out, rank_in):
    """Energy that either unfolding has beyond its rank."""
    sides = (kernel.reshape(len(kernel), -1), kernel.swapaxes(0, 1).reshape(kernel.shape[1], -1))
    values = [np.linalg.svd(side, compute_uv=False) ** 2 for side in sides]
    return [float(energy[rank:].sum()) for energy, rank in zip(values, (rank_out, rank_in), strict=True)]


shapes = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))


def test_the_factors_multiply_out_as_written():
    factors = tucker2(random_kernel(0, (4, 3, 2, 2)), 2, 3)
    expected = np.zeros((4, 3, 2, 2))
    for o, i, y, x in np.ndindex(expected.shape):
        for p in range(2):
            for q in range(3):
                expected[o, i, y, x] += factors.outer[o, p] * factors.core[p, q, y, x] * factors.inner[i, q]
    np.testing.assert_allclose(factors.kernel(), expected, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), shape=shapes)
@settings(max_examples=40, deadline=None)
def test_full_ranks_are_exact(seed, shape):
    kernel = random_kernel(seed, shape)
    np.testing.assert_allclose(tucker2(kernel, *limits(shape)).kernel(), kernel, atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1), shape=shapes, data=st.data())
@settings(max_examples=60, deadline=None)
def test_bounds_and_orthonormal_factors(seed, shape, data):
    kernel = random_kernel(seed, shape)
    rank_out, rank_in = (data.draw(st.integers(1, limit)) for limit in limits(shape))
    factors = tucker2(kernel, rank_out, rank_in)
    assert factors.core.shape == (rank_out, rank_in, *shape[2:])
    np.testing.assert_allclose(factors.outer.T @ factors.outer, np.eye(rank_out), atol=1e-12)
    np.testing.assert_allclose(factors.inner.T @ factors.inner, np.eye(rank_in), atol=1e-12)
    found, left_out = error(kernel, factors), tails(kernel, rank_out, rank_in)
    assert max(left_out) - 1e-9 <= found <= sum(left_out) + 1e-9


@given(seed=st.integers(0, 2**32 - 1), shape=shapes, data=st.data())
@settings(max_examples=30, deadline=None)
def test_another_iteration_is_never_worse(seed, shape, data):
    kernel = random_kernel(seed, shape)
    ranks = [data.draw(st.integers(1, limit)) for limit in limits(shape)]
    errors = [error(kernel, tucker2(kernel, *ranks, iterations=count)) for count in range(6)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(errors))


def test_iterations_help_and_end_where_neither_factor_can_be_bettered():
    kernel = random_kernel(3, (12, 10, 3, 3))
    start, end = (error(kernel, tucker2(kernel, 3, 4, iterations=count)) for count in (0, 500))
    assert end < 0.99 * start
    factors = tucker2(kernel, 3, 4, iterations=500)
    given_inner = np.einsum("oiyx,iq->oqyx", kernel, factors.inner).reshape(12, -1)
    energies = np.linalg.svd(given_inner, compute_uv=False) ** 2
    assert np.sum(factors.core**2) == pytest.approx(energies[:3].sum(), rel=1e-6)


def test_a_kernel_of_low_ranks_is_found_again():
    generator = np.random.default_rng(4)
    outer, inner = generator.normal(size=(20, 3)), generator.normal(size=(16, 2))
    kernel = np.einsum("op,pqyx,iq->oiyx", outer, generator.normal(size=(3, 2, 5, 5)), inner)
    np.testing.assert_allclose(tucker2(kernel, 3, 2).kernel(), kernel, atol=1e-9)
    assert tucker2_ranks(kernel + 1e-3 * generator.normal(size=kernel.shape)) == (3, 2)


def test_in_a_kernel_of_noise_nothing_rises_above_it():
    assert tucker2_ranks(random_kernel(5, (32, 16, 3, 3))) == (0, 0)


def test_a_side_of_one_channel_has_rank_1():
    generator = np.random.default_rng(9)
    kernel = np.einsum("op,piyx->oiyx", generator.normal(size=(32, 2)), generator.normal(size=(2, 1, 5, 5)))
    assert tucker2_ranks(kernel + 1e-2 * generator.normal(size=kernel.shape)) == (2, 1)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (6, 4, 2, 2, 2)])
def test_any_number_of_spatial_axes(shape):
    kernel = random_kernel(6, shape)
    factors = tucker2(kernel, 2, 3)
    assert factors.core.shape == (2, 3, *shape[2:])
    assert error(kernel, factors) < np.sum(kernel**2)
    np.testing.assert_allclose(tucker2(kernel, *limits(shape)).kernel(), kernel, atol=1e-10)


def test_one_input_channel():
    """The input side has rank 1 at most; the output side as many as there are positions."""
    kernel = random_kernel(7, (6, 1, 5, 5))
    assert limits(kernel.shape) == (6, 1)
    np.testing.assert_allclose(tucker2(kernel, 6, 1).kernel(), kernel, atol=1e-10)


@pytest.mark.parametrize(("rank_out", "rank_in"), [(0, 1), (1, 0), (7, 1), (1, 5), (-1, 2)])
def test_ranks_out_of_range_are_refused(rank_out, rank_in):
    with pytest.raises(ValueError, match=r"not within 1\.\.6 and 1\.\.4"):
        tucker2(random_kernel(0, (6, 4, 3, 3)), rank_out, rank_in)


def test_the_same_kernel_gives_the_same_factors():
    kernel = random_kernel(8, (9, 7, 3, 3))
    first, second = tucker2(kernel, 4, 3), tucker2(kernel.copy(), 4, 3)
    for name in ("outer", "core", "inner"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
