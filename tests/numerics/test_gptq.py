"""Rounding with error feedback against GPTQ as its paper writes it: plain loops, an inverse, float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dfmeta.numerics.gptq import DAMPING, Array, Codes, code_range, error, factorised, nearest, rounded
from dfmeta.numerics.rounding_scales import from_grid, from_largest, searched


def problem(outputs: int, features: int, samples: int, seed: int = 0) -> tuple[Array, Array]:
    """A weight, and the second moment of correlated inputs with a mean."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((features, features)) / np.sqrt(features)
    x = np.maximum(generator.standard_normal((samples, features)) @ mixing + 0.3, 0)
    return generator.standard_normal((outputs, features)), x.T @ x / samples


def reference(
    weight: Array, moment: Array, scales: Array, limits: tuple[int, int], damping: float, *, ordered: bool
) -> Codes:
    """Frantar et al., algorithm 1, without blocks: the inverse is cut down as columns are rounded."""
    features = weight.shape[1]
    energies = np.round(np.diagonal(moment) / np.diagonal(moment).max(), 4)
    order = np.argsort(-energies, kind="stable") if ordered else np.arange(features)
    damped = moment + damping * np.diagonal(moment).mean() * np.eye(features)
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    rest, codes = weight[:, order].copy(), np.zeros(weight.shape)
    for column in range(features):
        codes[:, column] = np.clip(np.rint(rest[:, column] / scales), *limits)
        wrong = (rest[:, column] - scales * codes[:, column]) / inverse[column, column]
        rest[:, column:] -= np.outer(wrong, inverse[column, column:])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    found = np.empty_like(codes)
    found[:, order] = codes
    return found.astype(np.int8)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("features", "samples"), [(7, 50), (64, 500), (150, 3000), (200, 60)])
def test_the_codes_are_those_of_the_paper(features: int, samples: int, bits: int, ordered: bool) -> None:
    weight, moment = problem(24, features, samples)
    limits = code_range(bits)
    scales = from_largest(weight, *limits)
    expected = reference(weight, moment, scales, limits, DAMPING, ordered=ordered)
    found = rounded(weight, factorised(moment, ordered=ordered), scales, *limits)
    assert (found == expected).mean() >= 0.9999
    assert found.min() >= limits[0]
    assert found.max() <= limits[1]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("features", [1, 2, 5, 12, 40])
def test_feedback_is_better_than_rounding_to_nearest_on_the_whole(features: int, bits: int) -> None:
    """Not for each matrix: a greedy choice may lose on few features."""
    limits = code_range(bits)
    errors = []
    for seed in range(20):
        weight, moment = problem(16, features, 400, seed)
        scales = from_largest(weight, *limits)
        codes = (rounded(weight, factorised(moment), scales, *limits), nearest(weight, scales, *limits))
        errors.append([error(weight - scales[:, None] * each, moment).sum() for each in codes])
    ours, plain = np.sum(errors, axis=0)
    assert ours == pytest.approx(plain, rel=1e-9) if features == 1 else ours < plain


def test_feedback_is_near_the_best_there_is() -> None:
    """All 4^5 codes of a row, tried one by one."""
    weight, moment = problem(12, 5, 300, seed=3)
    limits = code_range(2)
    scales, codes = searched(weight, moment, factorised(moment, 1e-6), *limits)
    every = np.array(list(itertools.product(range(-2, 2), repeat=5)), np.float64)
    best = [error(weight[row] - scale * every, moment).min() for row, scale in enumerate(scales)]
    found = error(weight - scales[:, None] * codes, moment)
    assert found.sum() <= 1.3 * np.sum(best)


def test_uncorrelated_inputs_need_no_feedback() -> None:
    weight, _ = problem(8, 20, 10)
    diagonal = np.random.default_rng(0).uniform(0.1, 3, 20)
    scales = from_largest(weight, -8, 7)
    found = rounded(weight, factorised(np.diag(diagonal)), scales, -8, 7)
    np.testing.assert_array_equal(found, nearest(weight, scales, -8, 7))


def test_what_is_never_seen_is_rounded_to_nearest() -> None:
    weight, _ = problem(8, 20, 10)
    scales = from_largest(weight, -8, 7)
    factor = factorised(np.zeros((20, 20)))
    np.testing.assert_array_equal(rounded(weight, factor, scales, -8, 7), nearest(weight, scales, -8, 7))


def test_a_moment_of_low_rank_needs_the_damping_that_is_reported() -> None:
    weight, moment = problem(4, 30, 5)
    assert factorised(moment, 0.01).damping == 0.01
    found = factorised(moment, 0.0)
    assert 0 < found.damping <= 1e-3
    assert np.isfinite(found.lower).all()
    assert rounded(weight, found, from_largest(weight, -8, 7), -8, 7).shape == weight.shape


def test_a_moment_with_negative_eigenvalues_is_damped_until_it_has_none() -> None:
    _, moment = problem(4, 30, 200)
    lowest = np.linalg.eigvalsh(moment)[0]
    spoiled = moment - (lowest + 0.5 * np.diagonal(moment).mean()) * np.eye(30)
    assert np.linalg.eigvalsh(spoiled)[0] < 0
    found = factorised(spoiled)
    assert found.damping == pytest.approx(1.0) or found.damping == pytest.approx(10.0)


def test_the_factor_is_one_of_the_moment() -> None:
    _, moment = problem(1, 12, 100)
    found = factorised(moment, 0.1)
    damped = moment + 0.1 * np.diagonal(moment).mean() * np.eye(12)
    np.testing.assert_allclose(found.lower @ found.lower.T, damped[np.ix_(found.order, found.order)], rtol=1e-12)
    assert (np.diff(np.diagonal(moment)[found.order]) >= 0).all()
    np.testing.assert_array_equal(np.triu(found.lower, 1), np.zeros((12, 12)))


@pytest.mark.parametrize(
    "moment", [np.full((3, 3), np.nan), np.ones((3, 2)), np.ones(3), np.diag([1.0, np.inf])], ids=str
)
def test_what_is_no_moment_is_refused(moment: Array) -> None:
    with pytest.raises(ValueError, match="a second moment"):
        factorised(moment)


@pytest.mark.parametrize("damping", [-1.0, float("nan"), float("inf")])
def test_damping_that_is_none_is_refused(damping: float) -> None:
    with pytest.raises(ValueError, match="damping"):
        factorised(np.eye(3), damping)


def test_a_moment_that_no_damping_repairs_is_refused() -> None:
    spoiled = np.array([[0.0, 1e9], [1e9, 1e-9]])
    with pytest.raises(ValueError, match="not positive definite"):
        factorised(spoiled)


@pytest.mark.parametrize("scales", [np.zeros(3), -np.ones(3), np.ones(2), np.full(3, np.nan)], ids=str)
def test_scales_that_are_none_are_refused(scales: Array) -> None:
    weight = np.ones((3, 4))
    for call in (
        lambda: nearest(weight, scales, -8, 7),
        lambda: rounded(weight, factorised(np.eye(4)), scales, -8, 7),
    ):
        with pytest.raises(ValueError, match="scales"):
            call()


def test_a_moment_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="4 features"):
        rounded(np.ones((3, 5)), factorised(np.eye(4)), np.ones(3), -8, 7)


@pytest.mark.parametrize(("bits", "expected"), [(8, (-127, 127)), (4, (-8, 7)), (3, (-4, 3)), (2, (-2, 1))])
def test_codes_of_so_many_bits(bits: int, expected: tuple[int, int]) -> None:
    assert code_range(bits) == expected


@pytest.mark.parametrize("bits", [-1, 0, 1, 9])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2 to 8"):
        code_range(bits)


def test_the_error_of_a_diagonal() -> None:
    difference = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_allclose(error(difference, np.arange(4.0)), error(difference, np.diag(np.arange(4.0))))


def test_the_largest_weight_sets_the_scale() -> None:
    weight = np.array([[7.0, -1.0], [3.5, -8.0], [0.0, 0.0]])
    np.testing.assert_array_equal(from_largest(weight, -8, 7), [1.0, 1.0, 1.0])
    assert np.abs(nearest(weight, from_largest(weight, -8, 7), -8, 7) - weight).max() <= 0.5


def test_the_grid_finds_the_best_share() -> None:
    weight, moment = problem(6, 30, 100)
    importance = np.diagonal(moment)

    def lost(scales: Array) -> Array:
        return error(weight - scales[:, None] * nearest(weight, scales, -4, 3), importance)

    found = lost(from_grid(weight, -4, 3, importance))
    whole = from_largest(weight, -4, 3)
    for share in np.linspace(1.0, 0.3, 71):
        assert (found <= lost(whole * share) * (1 + 1e-12)).all()


@pytest.mark.parametrize("way", ["largest", "grid", "search"])
def test_rows_of_one_channel_have_one_scale(way: str) -> None:
    weight, moment = problem(6, 10, 100)
    shared = np.array([0, 0, 1, 1, 2, 2])
    scales = {
        "largest": lambda: from_largest(weight, -4, 3, shared),
        "grid": lambda: from_grid(weight, -4, 3, None, shared),
        "search": lambda: searched(weight, moment, factorised(moment), -4, 3, shared)[0],
    }[way]()
    np.testing.assert_array_equal(scales[::2], scales[1::2])


def test_the_search_is_better_than_the_grid() -> None:
    weight, moment = problem(32, 60, 500)
    factor = factorised(moment)
    scales, codes = searched(weight, moment, factor, -2, 1)
    grid = from_grid(weight, -2, 1, np.diagonal(moment))
    ours = error(weight - scales[:, None] * codes, moment).sum()
    assert ours < error(weight - grid[:, None] * rounded(weight, factor, grid, -2, 1), moment).sum()
