"""Channels through reshapes: which axes of the result the entries of an axis end up on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from dfmeta.graph.channels_tracker import Axes, Labels, Tracker, Untraceable

Shape = Sequence[int | str]


def reshaped(tracker: Tracker, axes: Axes, source: Shape, target: Shape, where: str) -> Axes:
    """Labels after a reshape in C order.

    ``[n, c, h, w]`` to ``[n, c * h * w]`` repeats each channel's label ``h * w`` times; the way back finds the axis
    along which labels differ. Features that come to lie along several axes, as in a generator's ``[n, c * h * w]`` to
    ``[n, c, h, w]``, are tied into channels of the first.

    Raises:
        Untraceable: a free size in the middle of things.
    """
    found: Axes = [None] * len(target)
    for first, last, start, stop in _blocks(source, target):
        spread = _spread(tracker, axes[first:last], [int(size) for size in source[first:last]], where)
        if spread is None:
            continue
        if start == stop:
            tracker.fix(spread, f"{where} drops its axis")
            continue
        place, labels = _gathered(tracker, spread.reshape([int(size) for size in target[start:stop]]), where)
        found[start + place] = labels
    return found


def _blocks(source: Shape, target: Shape) -> Iterator[tuple[int, int, int, int]]:
    """Smallest runs of axes with the same number of elements: ``source[a:b]`` becomes ``target[c:d]``."""
    first = start = 0
    while first < len(source) or start < len(target):
        last, stop = min(first + 1, len(source)), min(start + 1, len(target))
        ends = (source[first:last], target[start:stop])
        if any(isinstance(size, str) for part in ends for size in part):
            if not all(part and isinstance(part[0], str) for part in ends):
                raise Untraceable("a free size is joined with another")
            first, start = last, stop
            continue
        while (one := _product(source[first:last])) != (other := _product(target[start:stop])):
            grow = one < other
            if (last if grow else stop) >= len(source if grow else target):
                raise Untraceable("sizes do not match")
            last, stop = last + grow, stop + (not grow)
        yield first, last, start, stop
        first, start = last, stop


def _product(sizes: Shape) -> int:
    if any(isinstance(size, str) for size in sizes):
        raise Untraceable("a free size is joined with another")
    return math.prod(int(size) for size in sizes)


def _spread(tracker: Tracker, axes: Axes, sizes: Sequence[int], where: str) -> Labels | None:
    """One label for each element of a run of axes, ``[prod(sizes)]``; None where nothing is labelled."""
    places = [place for place, labels in enumerate(axes) if labels is not None]
    if len(places) > 1:
        for place in places:
            tracker.fix(axes[place], f"{where} joins several axes of channels")
        spread = tracker.fresh(math.prod(sizes))
        tracker.fix(spread, f"{where} joins several axes of channels")
        return spread
    if not places:
        return None
    labels = axes[places[0]]
    around = [1] * len(sizes)
    around[places[0]] = -1
    if labels is None:
        return None
    return np.broadcast_to(labels.reshape(around), sizes).reshape(-1)


def _gathered(tracker: Tracker, labels: Labels, where: str) -> tuple[int, Labels]:
    """The first axis along which labels differ; what lies along further ones is tied to it, as one channel."""
    varying = [axis for axis in range(labels.ndim) if (labels != labels.take([0], axis)).any()]
    place = varying[0] if varying else 0
    rows = np.moveaxis(labels, place, 0).reshape(labels.shape[place], -1)
    if len(varying) > 1:
        for column in rows.T[1:]:
            tracker.tie(rows[:, 0], column, where)
    return place, rows[:, 0]
