"""How many bits each weight gets when all of them together have a budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfmeta.errors import StepError


def spend(costs: Mapping[str, Mapping[int, tuple[int, float]]], budget: int) -> dict[str, int]:
    """Bits of each weight, of least total error within a budget of bytes.

    From the most bits of all, the step that saves most bytes for the error that it adds is taken again and again. Only
    steps along the lower convex hull of each weight's choices are taken, so that what comes out is what a Lagrange
    multiplier would choose (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988).

    Args:
        costs: weight to bits to bytes and error.
        budget: bytes of all weights together.

    Returns:
        Weight to bits.

    Raises:
        StepError: fewer bytes than the fewest bits take.
    """
    hulls = {name: _hull(choices) for name, choices in costs.items()}
    places = dict.fromkeys(hulls, 0)
    total = sum(costs[name][hull[0]][0] for name, hull in hulls.items())
    least = sum(costs[name][hull[-1]][0] for name, hull in hulls.items())
    if least > budget:
        raise StepError(
            "--budget-bytes",
            f"{budget:,} for all weights",
            f"at least {least:,}, their size at the fewest bits that --bits and --first-last-bits allow",
            "Give more bytes, allow fewer bits, or make the model smaller first.",
        )
    while total > budget:
        steps = {name: place for name, place in places.items() if place + 1 < len(hulls[name])}
        name = min(steps, key=lambda one: _slope(costs[one], hulls[one], places[one]))
        saved, _ = _step(costs[name], hulls[name], places[name])
        total -= saved
        places[name] += 1
    return {name: hulls[name][place] for name, place in places.items()}


def _step(choices: Mapping[int, tuple[int, float]], hull: Sequence[int], place: int) -> tuple[int, float]:
    """Bytes that the next step saves, and the error that it adds."""
    before, after = choices[hull[place]], choices[hull[place + 1]]
    return before[0] - after[0], after[1] - before[1]


def _slope(choices: Mapping[int, tuple[int, float]], hull: Sequence[int], place: int) -> float:
    saved, added = _step(choices, hull, place)
    return added / saved


def _hull(choices: Mapping[int, tuple[int, float]]) -> list[int]:
    """Bits on the lower convex hull of error over bytes, from the most bytes to the fewest."""
    kept: list[int] = []
    for bits in sorted(choices, key=lambda one: (-choices[one][0], choices[one][1])):
        size, error = choices[bits]
        if kept and choices[kept[-1]][0] == size:
            continue
        # One of fewer bytes and no more error leaves nothing to those before it.
        while kept and choices[kept[-1]][1] >= error:
            kept.pop()
        while len(kept) > 1 and _above(choices[kept[-2]], choices[kept[-1]], (size, error)):
            kept.pop()
        kept.append(bits)
    return kept


def _above(first: tuple[int, float], middle: tuple[int, float], last: tuple[int, float]) -> bool:
    """Whether the middle point lies on or above the line between the other two."""
    return (middle[1] - first[1]) * (first[0] - last[0]) >= (last[1] - first[1]) * (first[0] - middle[0])
