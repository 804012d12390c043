"""One budget for many parts: within it, near the best of all choices, and the best on their convex hulls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta.numerics.allocation import allocated

numbers = st.integers(0, 20)
parts = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5), min_size=1, max_size=4)


def split(options: list[list[tuple[int, int]]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [np.array([cost for cost, _ in part], float) for part in options], [
        np.array([loss for _, loss in part], float) for part in options
    ]


def best(costs: list[np.ndarray], losses: list[np.ndarray], budget: float) -> float | None:
    """Every choice there is."""
    found = None
    for places in itertools.product(*(range(len(cost)) for cost in costs)):
        cost = sum(each[place] for each, place in zip(costs, places, strict=True))
        loss = sum(each[place] for each, place in zip(losses, places, strict=True))
        if cost <= budget and (found is None or loss < found):
            found = loss
    return found


@given(options=parts, budget=st.integers(0, 80))
@settings(deadline=None, max_examples=200)
def test_within_the_budget_and_less_than_one_step_from_the_best(
    options: list[list[tuple[int, int]]], budget: int
) -> None:
    costs, losses = split(options)
    expected = best(costs, losses, budget)
    if expected is None:
        with pytest.raises(ValueError, match="cheapest"):
            allocated(costs, losses, budget)
        return
    chosen = allocated(costs, losses, budget)
    assert sum(cost[place] for cost, place in zip(costs, chosen, strict=True)) <= budget
    total = sum(loss[place] for loss, place in zip(losses, chosen, strict=True))
    # The last step on the hulls may save more than it must; what that loses bounds the whole.
    assert expected <= total <= expected + max(float(np.ptp(loss)) for loss in losses)


@given(seed=st.integers(0, 1000))
@settings(deadline=None)
def test_at_budgets_that_the_hulls_reach_it_is_the_best(seed: int) -> None:
    """With convex losses over one grid of costs nothing is left over, and the Lagrangian choice is the optimum."""
    rng = np.random.default_rng(seed)
    costs = [np.arange(5.0) for _ in range(3)]
    losses = [np.cumsum(np.sort(rng.random(5)))[::-1].copy() for _ in range(3)]
    for budget in range(13):
        chosen = allocated(costs, losses, budget)
        total = sum(loss[place] for loss, place in zip(losses, chosen, strict=True))
        assert total == pytest.approx(best(costs, losses, budget))


def test_an_option_off_the_hull_takes_what_is_left() -> None:
    """From 10 the hull leads straight to 0; the budget of 6 is then spent on the option above the line."""
    costs, losses = [np.array([10.0, 6.0, 0.0])], [np.array([0.0, 9.0, 10.0])]
    assert allocated(costs, losses, 6) == [1]
    assert allocated(costs, losses, 5) == [2]
    assert allocated(costs, losses, 10) == [0]


@pytest.mark.parametrize(("costs", "losses"), [([np.empty(0)], [np.empty(0)]), ([np.ones(2)], [np.ones(1)])])
def test_parts_without_options_are_refused(costs: list[np.ndarray], losses: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="without options"):
        allocated(costs, losses, 3)
