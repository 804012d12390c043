"""Convolutions in stages: exact at full ranks, never worse when refined, and near what any start can reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.staged import Staged, by_channel, by_row
from dfmeta.numerics.tucker import tucker2
from dfmeta.numerics.whitened_svd import energy, relative_error, whitened_svd

TINY = 1e-12
shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 2**32 - 1)
forms = st.sampled_from([by_channel, by_row])


def kernel(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def moment(seed: int, features: int, count: int = 200) -> np.ndarray:
    """Of samples whose features have a mean and go together."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, features)) @ rng.standard_normal((features, features)) + rng.standard_normal(
        features
    )
    found: np.ndarray = x.T @ x / count
    return found


def flat(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1)


def slow_product(mix: np.ndarray, core: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """The three factors multiplied out, number by number."""
    found = np.zeros((len(outer), len(mix), core.shape[2]))
    for o, m, s in np.ndindex(found.shape):
        for p in range(core.shape[0]):
            for q in range(core.shape[1]):
                found[o, m, s] += outer[o, p] * core[p, q, s] * mix[m, q]
    return found


def slow_fit(weight: np.ndarray, h: np.ndarray, mix: np.ndarray) -> float:
    """The least error that any core can have behind a mix: one least squares problem over all of its numbers."""
    outputs, mixed, seen = weight.shape
    rank = mix.shape[1]
    design = np.zeros((outputs, mixed, seen, outputs, rank, seen))
    for o, m, s in np.ndindex(outputs, mixed, seen):
        design[o, m, s, o, :, s] = mix[m]
    root = np.kron(np.eye(outputs), np.linalg.cholesky(h).T)
    left = root @ design.reshape(outputs * mixed * seen, -1)
    target = root @ weight.reshape(-1)
    solution = np.linalg.lstsq(left, target, rcond=None)[0]
    return float(np.square(target - left @ solution).sum() / np.square(target).sum())


def test_the_factors_multiply_out_as_written() -> None:
    weight = by_row(kernel(0, (4, 3, 2, 3)))
    found = Staged(weight, moment(0, 18)).stages(4, 2)
    assert found.outer is not None
    np.testing.assert_allclose(found.whole(), slow_product(found.mix, found.core, found.outer), atol=1e-12)
    np.testing.assert_allclose(found.outer.T @ found.outer, np.eye(2), atol=1e-12)
    whole = Staged(weight, moment(0, 18)).stages(4)
    np.testing.assert_allclose(whole.whole(), slow_product(whole.mix, whole.core, np.eye(4)), atol=1e-12)


@given(seed=seeds, shape=shapes, form=forms)
@settings(deadline=None, max_examples=40)
def test_full_ranks_are_exact(seed: int, shape: tuple[int, ...], form) -> None:  # type: ignore[no-untyped-def]
    weight = form(kernel(seed, shape))
    staged = Staged(weight, moment(seed, flat(weight).shape[1]))
    for rank_out in (None, shape[0]):
        np.testing.assert_allclose(staged.stages(staged.limit_in, rank_out).whole(), weight, atol=1e-6)


@given(seed=seeds, shape=shapes, form=forms, data=st.data())
@settings(deadline=None, max_examples=60)
def test_the_curve_tells_the_error_and_refinement_only_lowers_it(  # type: ignore[no-untyped-def]
    seed: int, shape: tuple[int, ...], form, data: st.DataObject
) -> None:
    weight = form(kernel(seed, shape))
    h = moment(seed, flat(weight).shape[1])
    staged = Staged(weight, h, TINY)
    rank_in = data.draw(st.integers(1, staged.limit_in))
    rank_out = data.draw(st.integers(1, shape[0]))
    first, last = (staged.stages(rank_in, rank_out, rounds) for rounds in (0, 6))
    curve = staged.errors(rank_in)
    assert len(curve) == shape[0] + 1
    assert first.error == pytest.approx(curve[rank_out], abs=1e-9)
    assert last.error <= first.error + 1e-12
    for found in (first, last):
        assert relative_error(flat(weight), flat(found.whole()), h) == pytest.approx(found.error, rel=1e-4, abs=1e-7)


def test_refinement_ends_where_nothing_is_left_to_refine() -> None:
    """A layer of one tap: the start is exact, and conjugate gradients have a residual whose square is 0."""
    weight = by_channel(kernel(2873838, (4, 4, 1, 1)))
    assert Staged(weight, moment(2873838, 4), TINY).stages(1, None, 50).error >= 0


@given(seed=seeds, data=st.data())
@settings(deadline=None, max_examples=20)
def test_the_core_is_the_best_behind_its_mix(seed: int, data: st.DataObject) -> None:
    weight, h = by_channel(kernel(seed, (3, 4, 2, 2))), moment(seed, 16)
    found = Staged(weight, h, TINY).stages(data.draw(st.integers(1, 3)))
    assert found.error == pytest.approx(slow_fit(weight, h, found.mix), rel=1e-5, abs=1e-8)


def test_with_all_outputs_mixed_it_is_the_whitened_decomposition() -> None:
    """A first stage that keeps everything leaves a reduced-rank regression: the best of that rank."""
    weight, h = by_channel(kernel(1, (6, 3, 3, 3))), moment(1, 27)
    staged, svd = Staged(weight, h), whitened_svd(flat(weight), h)
    np.testing.assert_allclose(staged.errors(3), svd.errors, atol=1e-6)


def test_a_moment_that_is_a_product_needs_no_refinement() -> None:
    """Whitening by both sides makes it the identity, for which the mix without a last map is the best there is."""
    first, second = moment(2, 4), moment(3, 9)
    weight = by_channel(kernel(2, (6, 4, 3, 3)))
    staged = Staged(weight, np.kron(first, second), TINY)
    assert staged.stages(2, None, 50).error == pytest.approx(staged.errors(2)[6], rel=1e-9)


def test_at_the_identity_it_is_as_good_as_plain_tucker() -> None:
    values = kernel(4, (8, 6, 3, 3))
    found = Staged(by_channel(values), np.eye(54)).stages(3, 4, 200)
    plain = tucker2(values, 4, 3)
    expected = np.sum((values - plain.kernel()) ** 2) / np.sum(values**2)
    assert found.error == pytest.approx(expected, rel=5e-3)


@given(seed=st.integers(0, 99), form=forms)
@settings(deadline=None, max_examples=20)
def test_better_in_the_norm_of_the_moment_than_made_without_it(seed: int, form) -> None:  # type: ignore[no-untyped-def]
    weight = form(kernel(seed, (6, 4, 3, 3)))
    h = moment(seed, 36)
    mine, blind = (Staged(weight, given).stages(2, 4).whole() for given in (h, np.eye(36)))
    assert energy(flat(weight - mine), h) < energy(flat(weight - blind), h)


@pytest.mark.parametrize("rank_out", [None, 4])
def test_refinement_is_worth_its_while(rank_out: int | None) -> None:
    """Rows and columns that go together are what the start does not know of."""
    staged = Staged(by_row(kernel(7, (6, 5, 3, 3))), moment(7, 45))
    errors = [staged.stages(7, rank_out, rounds).error for rounds in (0, 1, 6)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.9 * errors[0]


def test_a_separable_kernel_is_found_again() -> None:
    rng = np.random.default_rng(5)
    rows, columns = rng.standard_normal((2, 3, 3)), rng.standard_normal((5, 2, 3))
    values = np.einsum("rcy,orx->ocyx", rows, columns)
    found = Staged(by_row(values), moment(5, 27)).stages(2)
    np.testing.assert_allclose(found.whole(), by_row(values), atol=1e-5)


def test_a_moment_of_low_rank_and_one_that_is_none() -> None:
    weight = by_channel(kernel(6, (4, 3, 2, 2)))
    few = moment(6, 12, count=3)
    staged = Staged(weight, few)
    assert staged.damping == 1e-6
    assert staged.stages(2).error < 0.3
    assert np.isfinite(staged.stages(1, 2).whole()).all()
    assert Staged(weight, np.zeros((12, 12))).stages(2).error < 1
    negative = 2 * few
    np.fill_diagonal(negative, np.diagonal(few))
    assert Staged(weight, negative).damping > 0.1


@pytest.mark.parametrize(("rank_in", "rank_out"), [(0, 1), (5, 1), (1, 0), (1, 4), (-1, None)])
def test_ranks_out_of_range(rank_in: int, rank_out: int | None) -> None:
    staged = Staged(by_channel(kernel(0, (3, 4, 2, 2))), np.eye(16))
    with pytest.raises(ValueError, match=r"not within 1\.\.4 and 1\.\.3"):
        staged.stages(rank_in, rank_out)


def test_a_moment_of_another_size() -> None:
    with pytest.raises(ValueError, match="a moment of shape"):
        Staged(by_channel(kernel(0, (3, 4, 2, 2))), np.eye(4))
