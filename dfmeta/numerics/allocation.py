"""One budget for many parts, each of which has a list of options: what each shall cost.

The least total loss within a budget is a knapsack of multiple choice. Its Lagrangian form is solved exactly by going
down the lower convex hulls of all parts in the order of their slopes (Everett, 1963; Shoham and Gersho, "Efficient
Bit Allocation for an Arbitrary Set of Quantizers", 1988). What the last step saves too much is given back to the
options that lower the loss most for what they cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def allocated(costs: Sequence[Array], losses: Sequence[Array], budget: float) -> list[int]:
    """An option for each part, of nearly the least total loss that the budget allows.

    Args:
        costs: ``[options]`` of each part, one or more, none negative.
        losses: the same of what is lost, finite.
        budget: what all parts together may cost.

    Returns:
        The place of one option for each part.

    Raises:
        ValueError: a budget below the least total cost, or a part without options.
    """
    if not all(len(cost) and len(cost) == len(loss) for cost, loss in zip(costs, losses, strict=True)):
        raise ValueError("a part without options, or with as many losses as it has costs")
    hulls = [_hull(cost, loss) for cost, loss in zip(costs, losses, strict=True)]
    chosen = [hull[0] for hull in hulls]
    total = float(sum(cost[place] for cost, place in zip(costs, chosen, strict=True)))
    steps = sorted(
        (_slope(costs[part], losses[part], before, after), part, number)
        for part, hull in enumerate(hulls)
        for number, (before, after) in enumerate(pairwise(hull))
    )
    for _, part, number in steps:
        if total <= budget:
            break
        after = hulls[part][number + 1]
        total += float(costs[part][after] - costs[part][chosen[part]])
        chosen[part] = after
    if total > budget:
        raise ValueError(f"a budget of {budget:g} where the cheapest options cost {total:g}")
    return _spent(costs, losses, budget - total, chosen)


def _hull(cost: Array, loss: Array) -> list[int]:
    """Options on the lower convex hull, from the least loss to the least cost."""
    hull: list[int] = []
    for place in np.lexsort((cost, loss)).tolist():
        if hull and cost[place] >= cost[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(cost, loss, hull[-2], hull[-1]) >= _slope(cost, loss, hull[-1], place):
            hull.pop()
        hull.append(place)
    return hull


def _slope(cost: Array, loss: Array, before: int, after: int) -> float:
    """Loss for each unit saved."""
    return float((loss[after] - loss[before]) / (cost[before] - cost[after]))


def _spent(costs: Sequence[Array], losses: Sequence[Array], left: float, chosen: list[int]) -> list[int]:
    """Spend what is left over, best bargain first."""
    while True:
        best: tuple[float, int, int] | None = None
        for part, place in enumerate(chosen):
            extra, gain = costs[part] - costs[part][place], losses[part][place] - losses[part]
            worth = np.where((gain > 0) & (extra <= left), gain / np.maximum(extra, 1e-300), 0.0)
            option = int(worth.argmax())
            if worth[option] > (best[0] if best else 0.0):
                best = float(worth[option]), part, option
        if best is None:
            return chosen
        left -= float(costs[best[1]][best[2]] - costs[best[1]][chosen[best[1]]])
        chosen[best[1]] = best[2]
