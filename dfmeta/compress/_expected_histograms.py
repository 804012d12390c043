"""Histograms of values whose channels were scaled, from what second moments still say of each channel.

A histogram counts all channels together, and no other one follows from it once each of them is divided by a number of
its own. Second moments are scaled exactly, and with them the mean and the mean square of each channel are known: what
a normal variable with these would count, or a rectified one where nothing below 0 was ever recorded, takes its place.
For a rectified one ``x = max(z, 0)`` with z of mean ``s t`` and deviation s, ``E[x] = s (t P + p)`` and
``E[x^2] = s^2 ((t^2 + 1) P + t p)`` for the normal density p and distribution function P at t, so that t is where the
second over the square of the first is what was recorded.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.compress import _ranges, equalize
from dfmeta.compress._operators import InputRecord, Operator, input_record, operators
from dfmeta.graph import Graph
from dfmeta.kinds.histogram.spec import bin_of, rank_of
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import histogram_record

Array = NDArray[np.float64]

# Between these, E[x^2] / E[x]^2 of a rectified variable falls from 46,000 to 1.001.
_LEAST, _MOST = -4.0, 30.0
_HALVINGS = 60
# Counts are whole numbers, and none of those that matter shall become 0.
_TOTAL = 1 << 30


def with_expected_histograms(
    before: PublishedRecords, result: equalize.Result
) -> tuple[PublishedRecords, tuple[str, ...]]:
    """The records of an equalized graph, with histograms in place of those that scaling took away.

    Args:
        before: records of the graph as it was.
        result: of :func:`dfmeta.compress.equalize.run`.

    Returns:
        The records, and the values that weights read whose histograms are expected ones. A value of which no second
        moment is known stays without.
    """
    more = {}
    for operator in operators(result.graph):
        value = operator.entry.value
        lost = histogram_record(before, value)
        if value in more or value not in result.scales or lost is None:
            continue
        record = input_record(result.records, operator)
        if record.moment is None:
            continue
        mean, square = _channels(result.graph, operator, record)
        tensors = _counts(mean, square, rectified=_ranges.read(lost).low >= 0)
        more[value] = replace(lost, record=f"expected-{value}", tensors=tensors)
    return replace(result.records, statistics=(*result.records.statistics, *more.values())), tuple(more)


def _channels(graph: Graph, operator: Operator, record: InputRecord) -> tuple[Array, Array]:
    """E[x] and E[x^2] of each channel, or feature where there is no window.

    Compact records tell the taps of a window apart in part only: over all of them is what all forms agree on, but for
    the zeros of the padding, whose share is known.
    """
    moment, means = np.asarray(record.moment), np.asarray(record.mean)
    taps = math.prod(operator.shape[2:]) if operator.entry.op == "Conv" else 1
    square, mean = (each.reshape(-1, taps).mean(1) for each in (np.einsum("gii->gi", moment), means))
    inside = _inside(graph, operator)
    return mean / inside, square / inside


def _inside(graph: Graph, operator: Operator) -> float:
    """Which share of what a window reads is no padding; 1 where sizes are not known."""
    window, node = operator.entry.window, graph.model.graph.node[operator.node]
    if window is None or operator.entry.op != "Conv":
        return 1.0
    share = 1.0
    sizes = zip(graph.value(operator.entry.value).shape[2:], graph.value(node.output[0]).shape[2:], strict=True)
    for axis, (size, count) in enumerate(sizes):
        if not isinstance(size, int) or not isinstance(count, int):
            return 1.0
        starts = np.arange(count) * window.strides[axis] - window.before[axis]
        places = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        share *= float(((places >= 0) & (places < size)).mean())
    return share


def _counts(mean: Array, square: Array, *, rectified: bool) -> dict[str, Tensor]:
    variance = np.maximum(square - mean**2, 0.0)
    if rectified:
        mean, variance = before_rectifier(mean, square)
    normal = _ranges.from_gaussians(mean, variance)
    middle = (normal.lower + normal.upper) / 2
    bins, places = np.unique(bin_of(np.maximum(middle, 0.0) if rectified else middle), return_inverse=True)
    shares = np.bincount(places, normal.counts)
    counts = np.maximum(np.rint(shares / shares.sum() * _TOTAL), 1).astype(np.int64)
    order = np.argsort(rank_of(bins))
    told = {"bins": bins[order], "counts": counts[order][None], "count": counts.sum(keepdims=True)}
    return {name: torch.from_numpy(array) for name, array in told.items()}


def before_rectifier(mean: Array, square: Array) -> tuple[Array, Array]:
    """Mean and variance of normal variables which, cut off below 0, have this mean and mean square.

    Args:
        mean: ``[c]``, 0 or more.
        square: ``[c]``, at least the square of the mean.
    """
    seen = mean > 0
    wanted = np.divide(square, mean**2, out=np.ones_like(mean), where=seen)
    low, high = np.full_like(mean, _LEAST), np.full_like(mean, _MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        first, second = _rectified(middle)
        wider = second / first**2 > wanted
        low, high = np.where(wider, middle, low), np.where(wider, high, middle)
    scale = np.where(seen, mean / _rectified(low)[0], 0.0)
    return scale * low, scale**2


def _rectified(t: Array) -> tuple[Array, Array]:
    """First and second moment of ``max(z, 0)`` for z of mean t and variance 1."""
    density = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * torch.erfc(torch.from_numpy(-t / math.sqrt(2))).numpy()
    return t * below + density, (t**2 + 1) * below + t * density
