"""Least squares on fewer inputs, against a plain solver on samples, and block elimination against both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.numerics.least_squares import (
    DiagonalReader,
    Reader,
    chosen,
    eliminated,
    energies,
    gains,
    refitted,
    residual,
)
from dfmeta.numerics.whitened_svd import bias_shift, centred

TINY = 1e-12


def samples(seed: int, features: int, count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, features)) @ rng.standard_normal((features, features)) + rng.standard_normal(
        features
    )


def moment(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = x.T @ x / len(x)
    return found


def weight(seed: int, outputs: int, features: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).standard_normal((outputs, features))


@given(seed=st.integers(0, 99), kept=st.sets(st.integers(0, 5), min_size=1))
def test_the_refit_is_the_solution_on_the_samples(seed: int, kept: set[int]) -> None:
    x, w, stay = samples(seed, 6), weight(seed, 3, 6), np.array(sorted(kept))
    expected = np.linalg.lstsq(x[:, stay], x @ w.T, rcond=None)[0].T
    found = refitted(w, moment(x), stay, TINY)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    error = np.square(x @ w.T - x[:, stay] @ found.T).sum(1).mean()
    np.testing.assert_allclose(residual(w, moment(x), stay, found), error, rtol=1e-6, atol=1e-9)


@given(seed=st.integers(0, 99), kept=st.sets(st.integers(0, 5), min_size=1))
def test_a_refit_is_never_worse_than_leaving_columns_out(seed: int, kept: set[int]) -> None:
    c, w, stay = moment(samples(seed, 6)), weight(seed, 3, 6), np.array(sorted(kept))
    assert residual(w, c, stay, refitted(w, c, stay)) <= residual(w, c, stay, w[:, stay]) * (1 + 1e-9) + 1e-9


def test_keeping_everything_changes_nothing_however_strong_the_ridge() -> None:
    w = weight(0, 3, 5)
    np.testing.assert_array_equal(refitted(w, moment(samples(0, 5)), np.arange(5), 10.0), w)


def test_refitting_step_by_step_is_refitting_at_once() -> None:
    c, w = moment(samples(1, 6)), weight(1, 3, 6)
    first, last = np.array([0, 1, 3, 5]), np.array([0, 2])
    twice = refitted(refitted(w, c, first, TINY), c[np.ix_(first, first)], last, TINY)
    np.testing.assert_allclose(twice, refitted(w, c, first[last], TINY), rtol=1e-6, atol=1e-6)


def test_a_copy_takes_over_what_its_twin_did() -> None:
    x = samples(2, 3)
    x = np.concatenate([x, x[:, :1]], axis=1)
    w = weight(2, 2, 4)
    found = refitted(w, moment(x), np.array([0, 1, 2]), 1e-9)
    np.testing.assert_allclose(found[:, 0], w[:, 0] + w[:, 3], rtol=1e-4, atol=1e-5)


def test_inputs_that_are_never_there_leave_the_weight_alone() -> None:
    """Where the moment says nothing, the ridge keeps the weight as it was."""
    w = weight(3, 2, 4)
    np.testing.assert_allclose(refitted(w, np.zeros((4, 4)), np.array([1, 2])), w[:, [1, 2]])


@given(seed=st.integers(0, 99))
def test_a_cost_is_the_rise_of_the_error(seed: int) -> None:
    c, w = moment(samples(seed, 6)), weight(seed, 3, 6)
    blocks = np.arange(6).reshape(3, 2)
    reader, energy = Reader(w, c, blocks, TINY), float(np.trace(w @ c @ w.T))
    gone: list[int] = []
    for block in (1, 0):
        left = np.array([number for number in range(3) if number not in gone])
        costs = reader.costs(left)
        before = _error(w, c, blocks, gone)
        for number, cost in zip(left, costs, strict=True):
            rise = _error(w, c, blocks, [*gone, int(number)]) - before
            np.testing.assert_allclose(cost, rise / energy, rtol=1e-5, atol=1e-8)
        reader.take_away(block)
        gone.append(block)


def _error(w: np.ndarray, c: np.ndarray, blocks: np.ndarray, gone: list[int]) -> float:
    kept = np.setdiff1d(np.arange(w.shape[1]), blocks[gone].reshape(-1))
    return residual(w, c, kept, refitted(w, c, kept, TINY)) if len(kept) else float(np.trace(w @ c @ w.T))


def test_the_choice_finds_what_can_be_made_up_for() -> None:
    """Blocks 0 and 2 are the same numbers; block 3 is never read. One twin and the unread block may go."""
    x = samples(4, 6)
    x = np.concatenate([x[:, :2], x[:, 2:4], x[:, :2], x[:, 4:]], axis=1)
    w = weight(4, 3, 8)
    w[:, 6:] = 0
    kept = chosen([Reader(w, moment(x), np.arange(8).reshape(4, 2), 1e-9)], 4, 2)
    assert 1 in kept
    assert 3 not in kept


def test_every_reader_has_a_say() -> None:
    c = np.eye(3)
    blocks = np.arange(3)[:, None]
    first, second = np.array([[1.0, 0.1, 0.5]]), np.array([[0.0, 9.0, 0.1]])
    assert chosen([Reader(first, c, blocks)], 3, 2).tolist() == [0, 2]
    assert chosen([Reader(one, c, blocks) for one in (first, second)], 3, 2).tolist() == [0, 1]


@given(seed=st.integers(0, 99), kept=st.sets(st.integers(0, 5), min_size=1))
def test_a_refit_about_the_mean_is_the_affine_solution(seed: int, kept: set[int]) -> None:
    """With a constant among the samples' columns."""
    x, w, stay = samples(seed, 6), weight(seed, 3, 6), np.array(sorted(kept))
    with_constant = np.concatenate([x[:, stay], np.ones((len(x), 1))], axis=1)
    expected = np.linalg.lstsq(with_constant, x @ w.T, rcond=None)[0].T
    found = refitted(w, centred(moment(x), x.mean(0)), stay, TINY)
    np.testing.assert_allclose(found, expected[:, :-1], rtol=1e-6, atol=1e-6)
    whole = np.zeros_like(w)
    whole[:, stay] = found
    np.testing.assert_allclose(bias_shift(w, whole, x.mean(0)), expected[:, -1], rtol=1e-6, atol=1e-6)


@given(seed=st.integers(0, 99), kept=st.sets(st.integers(0, 5), min_size=1))
def test_gains_give_variance_back_at_a_known_price(seed: int, kept: set[int]) -> None:
    x, w, stay = samples(seed, 6), weight(seed, 1, 6), np.array(sorted(kept))
    c = centred(moment(x), x.mean(0))
    fitted = np.zeros_like(w)
    fitted[:, stay] = refitted(w, c, stay, TINY)
    gain = gains(w, fitted, c)
    np.testing.assert_allclose((x @ (gain[:, None] * fitted).T).var(0), (x @ w.T).var(0), rtol=1e-6)
    share = residual(w, c, stay, fitted[:, stay]) / float((x @ w.T).var())
    price = residual(w, c, stay, gain[:, None] * fitted[:, stay]) / float((x @ w.T).var())
    np.testing.assert_allclose(price, 2 * (1 - np.sqrt(1 - min(share, 1))), rtol=1e-4, atol=1e-6)


def test_outputs_that_never_vary_keep_their_rows() -> None:
    assert gains(
        np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, 0.0])
    ).tolist() == [1, 1]


@given(seed=st.integers(0, 99))
def test_energies_are_those_of_each_block_alone(seed: int) -> None:
    x, w, blocks = samples(seed, 6), weight(seed, 3, 6), np.array([[0, 3], [1, 2], [4, 5]])
    expected = [np.square(x[:, block] @ w[:, block].T).sum(1).mean() for block in blocks]
    np.testing.assert_allclose(energies(w, moment(x), blocks), expected, rtol=1e-9)


@given(seed=st.integers(0, 99), order=st.permutations(range(3)))
def test_costs_in_a_given_order_add_up_to_the_error(seed: int, order: list[int]) -> None:
    c, w, blocks = moment(samples(seed, 6)), weight(seed, 3, 6), np.arange(6).reshape(3, 2)
    gone, costs = eliminated([Reader(w, c, blocks, TINY, energy=1.0)], np.arange(3), 2, np.array(order))
    assert gone.tolist() == order[:2]
    np.testing.assert_allclose(costs.sum(), _error(w, c, blocks, order[:2]), rtol=1e-5, atol=1e-8)


def test_only_candidates_go_and_their_energy_is_in_given_units() -> None:
    readers = [DiagonalReader(np.array([[1.0, 2.0, 3.0]]), np.ones(3), np.arange(3)[:, None], energy=2.0)]
    gone, costs = eliminated(readers, np.array([1, 2]), 2)
    assert (gone.tolist(), costs.tolist()) == ([1, 2], [2.0, 4.5])


@pytest.mark.parametrize(("readers", "keep"), [(0, 1), (1, 0), (1, 4)])
def test_a_choice_that_is_none_is_refused(readers: int, keep: int) -> None:
    reader = Reader(np.ones((1, 3)), np.eye(3), np.arange(3)[:, None])
    with pytest.raises(ValueError, match="of 3 blocks"):
        chosen([reader] * readers, 3, keep)


@pytest.mark.parametrize(
    ("c", "damping"),
    [(np.eye(4), 1e-3), (np.eye(3), 0.0), (np.eye(3), np.nan), (np.full((3, 3), np.inf), 1e-3), (-np.eye(3), 1e-3)],
)
def test_what_does_not_fit_is_refused(c: np.ndarray, damping: float) -> None:
    with pytest.raises(ValueError, match="a moment"):
        refitted(np.ones((2, 3)), c, np.array([0]), damping)
