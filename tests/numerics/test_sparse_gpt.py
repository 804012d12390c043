"""SparseGPT's rule, against a plain version that solves anew after every column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.damping import damped
from dfmeta.numerics.sparse_gpt import inverse_factor, sparsified

DAMPING = 1e-2


def moment_of(seed: int, features: int, count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, features)) @ rng.standard_normal((features, features)) + rng.standard_normal(
        features
    )
    found: np.ndarray = x.T @ x / count
    return found


def weight_of(seed: int, outputs: int, features: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).standard_normal((outputs, features))


def reference(weight: np.ndarray, moment: np.ndarray, sparsity: float | tuple[int, int], block: int) -> np.ndarray:
    """Column by column: what goes is made up for by all columns after it, in least squares, with no factor kept.

    With the columns before it as they are, the best change of those after column j, when j changes by e, is
    ``-e C[j, R] C[R, R]^-1`` in terms of C, the moment; and what remains of e is its conditional variance, the inverse
    of the first diagonal entry of the inverse of ``C[j:, j:]``.
    """
    outputs, features = weight.shape
    ridge = moment + DAMPING * np.diagonal(moment).mean() * np.eye(features)
    found, gone = weight.copy(), np.zeros(weight.shape, bool)
    for j in range(features):
        leftover = [1 / np.linalg.inv(ridge[k:, k:])[0, 0] for k in range(features)]
        if isinstance(sparsity, float) and j % block == 0:
            part = range(j, min(j + block, features))
            scores = {(o, k): found[o, k] ** 2 * leftover[k] for o in range(outputs) for k in part}
            for o, k in sorted(scores, key=scores.__getitem__)[: round(sparsity * len(scores))]:
                gone[o, k] = True
        elif not isinstance(sparsity, float) and j % sparsity[1] == 0:
            for o in range(outputs):
                part = range(j, j + sparsity[1])
                for k in sorted(part, key=lambda k: found[o, k] ** 2 * leftover[k])[: sparsity[1] - sparsity[0]]:
                    gone[o, k] = True
        for o in range(outputs):
            if gone[o, j]:
                change = -found[o, j]
                if j + 1 < features:
                    found[o, j + 1 :] -= change * np.linalg.solve(ridge[j + 1 :, j + 1 :], ridge[j + 1 :, j])
                found[o, j] = 0
    return found


@given(
    seed=st.integers(0, 99),
    sparsity=st.sampled_from([0.25, 0.5, 0.8, (2, 4), (1, 4), (1, 2)]),
    block=st.sampled_from([4, 8, 128]),
)
@settings(max_examples=15, deadline=None)
def test_it_is_the_plain_rule(seed: int, sparsity: float | tuple[int, int], block: int) -> None:
    moment, weight = moment_of(seed, 12), weight_of(seed, 3, 12)
    found, damping = sparsified(weight, moment, sparsity, damping=DAMPING, block=block)
    np.testing.assert_allclose(found, reference(weight, moment, sparsity, block), rtol=1e-7, atol=1e-9)
    assert damping == DAMPING


@given(seed=st.integers(0, 99), few=st.integers(1, 7), many=st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_a_pattern_holds(seed: int, few: int, many: int) -> None:
    few = min(few, many - 1)
    found, _ = sparsified(weight_of(seed, 5, 3 * many), moment_of(seed, 3 * many), (few, many))
    assert (np.count_nonzero(found.reshape(5, 3, many), axis=2) == few).all()


@given(seed=st.integers(0, 99), fraction=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_a_fraction_holds_in_every_block(seed: int, fraction: float) -> None:
    found, _ = sparsified(weight_of(seed, 5, 20), moment_of(seed, 20), fraction, block=8)
    for start, stop in ((0, 8), (8, 16), (16, 20)):
        part = found[:, start:stop]
        assert np.count_nonzero(part == 0) == round(fraction * part.size)


def error(weight: np.ndarray, found: np.ndarray, moment: np.ndarray) -> float:
    return float(np.trace((weight - found) @ moment @ (weight - found).T))


def test_it_loses_less_than_the_smallest_weights_set_to_zero() -> None:
    """A claim of the method, not a law of each matrix: for inputs that resemble their neighbours, as pixels do."""
    moment = 0.9 ** np.abs(np.subtract.outer(np.arange(32), np.arange(32)))
    for seed in range(20):
        weight = weight_of(seed, 8, 32)
        found, _ = sparsified(weight, moment, 0.5, block=8)
        smallest = np.where(np.abs(weight) > np.median(np.abs(weight)), weight, 0)
        assert error(weight, found, moment) < 0.6 * error(weight, smallest, moment)


@given(seed=st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_independent_inputs_are_not_made_up_for(seed: int) -> None:
    scale = np.random.default_rng(seed).uniform(0.5, 2, 8)
    weight = weight_of(seed, 4, 8)
    found, _ = sparsified(weight, np.diag(scale), 0.5)
    np.testing.assert_array_equal(found[found != 0], weight[found != 0])
    scores = np.square(weight) * (scale + DAMPING * scale.mean())
    assert scores[found == 0].max() <= scores[found != 0].min()


def test_twins_take_over() -> None:
    """The second of two equal inputs does the work of both."""
    x = np.random.default_rng(0).standard_normal((200, 1))
    found, _ = sparsified(
        np.array([[1.0, 2.0]]), np.concatenate([x, x], 1).T @ np.concatenate([x, x], 1), 0.5, damping=1e-9
    )
    np.testing.assert_allclose(found, [[0.0, 3.0]], rtol=1e-6)


def test_a_moment_of_low_rank_is_damped() -> None:
    x = np.random.default_rng(1).standard_normal((3, 8))
    found, damping = sparsified(weight_of(1, 4, 8), x.T @ x, (2, 4))
    assert np.isfinite(found).all()
    assert damping == DAMPING


def test_an_indefinite_moment_is_damped_more_and_says_so() -> None:
    moment = np.eye(8)
    moment[0, 1] = moment[1, 0] = 1.05
    found, damping = sparsified(weight_of(2, 4, 8), moment, 0.5)
    assert np.isfinite(found).all()
    assert damping == pytest.approx(0.1)


def test_inputs_that_are_never_there_go_first() -> None:
    moment = moment_of(3, 8)
    moment[:4] = moment[:, :4] = 0
    found, _ = sparsified(weight_of(3, 5, 8), moment, 0.5)
    assert (found[:, :4] == 0).mean() >= 0.9


def test_the_factor_is_one_of_the_inverse() -> None:
    moment = damped(moment_of(4, 9), DAMPING).moment
    factor = inverse_factor(moment)
    assert (np.tril(factor, -1) == 0).all()
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(moment), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("sparsity", "features"),
    [(0.0, 8), (1.0, 8), (-0.5, 8), (float("nan"), 8), ((0, 4), 8), ((4, 4), 8), ((2, 4), 6), ((5, 4), 8)],
)
def test_a_sparsity_out_of_range_is_refused(sparsity: float | tuple[int, int], features: int) -> None:
    with pytest.raises(ValueError, match=r"sparsity of|columns"):
        sparsified(weight_of(0, 2, features), np.eye(features), sparsity)


def test_a_moment_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="a moment of shape"):
        sparsified(weight_of(0, 2, 8), np.eye(6), 0.5)
