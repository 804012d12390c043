"""Ranges from histograms against the values themselves."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta._catalog import KINDS
from dfmeta.compress import _ranges
from dfmeta.compress._ranges import Histogram, affine, bounds, from_gaussians, quantile, read
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.records.published import Statistic

# Bins are at most 1/16 as wide as their values are large.
BIN = 1 / 16


def statistic(values: np.ndarray) -> Statistic:
    accumulator = KINDS.load("histogram", "accumulate").Accumulator(1, 1, {})
    accumulator.update(torch.from_numpy(values)[:, None], torch.zeros(len(values), dtype=torch.int64))
    arrays = accumulator.tensors(np.array([len(values)]), 1)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    members: dict[str, Any] = {"features": "flattened", "feature_axis": 1, "tensors": tensors}
    return Statistic("r", "s", "x", "histogram", False, **members)


def drawn(kind: str, count: int = 200_000) -> np.ndarray:
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(count).astype(np.float32)
    return {
        "relu": np.maximum(normal, 0),
        "normal": normal,
        "skewed": np.exp(normal) - 1.5,
        "negative": -np.abs(normal),
    }[kind].astype(np.float32)


def loss(values: np.ndarray, low: float, high: float, bits: int) -> float:
    found = affine(low, high, bits, symmetric=False)
    codes = np.clip(np.rint(values / found.scale) + found.zero, 0, 2**bits - 1)
    return float(np.square(values - found.scale * (codes - found.zero)).mean())


KINDS_OF_VALUES = ["relu", "normal", "skewed", "negative"]


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
def test_the_whole_range_holds_every_value(kind: str) -> None:
    values = drawn(kind)
    low, high = bounds(read(statistic(values)), "minmax", 8)
    assert low <= min(values.min(), 0.0)
    assert high >= max(values.max(), 0.0)
    assert low >= min(values.min(), 0.0) * (1 + BIN)
    assert high <= max(values.max(), 0.0) * (1 + BIN) + 1e-30


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentiles_are_those_of_the_values_to_a_bin(kind: str, percentile: float) -> None:
    values = drawn(kind)
    low, high = bounds(read(statistic(values)), "percentile", 8, percentile)
    expected = min(np.percentile(values, 100 - percentile), 0), max(np.percentile(values, percentile), 0)
    np.testing.assert_allclose((low, high), expected, rtol=BIN, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
@pytest.mark.parametrize("bits", [4, 8])
def test_least_squares_is_near_the_best_range_for_the_values(kind: str, bits: int) -> None:
    values = drawn(kind, 20_000)
    found = loss(values, *bounds(read(statistic(values)), "mse", bits), bits)
    shares = np.linspace(0.02, 1, 30)
    lows = values.min() * shares if values.min() < 0 else [0.0]
    highs = values.max() * shares if values.max() > 0 else [0.0]
    best = min(loss(values, low, high, bits) for low in lows for high in highs if high > low)
    assert found <= 1.06 * best


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
def test_least_divergence_is_a_range_of_values(kind: str) -> None:
    values = drawn(kind)
    low, high = bounds(read(statistic(values)), "entropy", 8)
    assert values.min() * (1 + BIN) <= low <= 0 <= high <= max(values.max(), 0) * (1 + BIN)


def by_the_book(lower: np.ndarray, upper: np.ndarray, counts: np.ndarray, bits: int) -> tuple[float, float]:
    """The range by Migacz's procedure, number by number: each bin is eight values, and those fall into 2,048 bins."""
    largest, signed = max(-lower[0], upper[-1]), lower[0] < 0
    bins = [0.0] * 2048
    for low, high, count in zip(lower, upper, counts, strict=True):
        for place in range(8):
            value = low + (place + 0.5) / 8 * (high - low)
            bins[min(int(abs(value) / largest * 2048), 2047)] += count / 8
    bins[0] = bins[1]
    levels = 2 ** (bits - 1 if signed else bits)
    costs = {end: divergence(bins, end, levels) for end in range(levels, 2049, 16)}
    threshold = min(costs, key=costs.__getitem__) / 2048 * largest
    return (max(-threshold, lower[0]) if signed else 0.0), max(min(threshold, upper[-1]), 0.0)


def divergence(bins: list[float], end: int, levels: int) -> float:
    """Kullback-Leibler: of the first ``end`` bins, the rest in the last, from those averaged over equal levels."""
    reference = bins[:end]
    reference[-1] += sum(bins[end:])
    averaged, inside = [0.0] * end, defaultdict(list)
    for place in range(end):
        if bins[place] > 0:
            inside[place * levels // end].append(place)
    for places in inside.values():
        for place in places:
            averaged[place] = sum(bins[each] for each in places) / len(places)
    whole, approximate = sum(reference), max(sum(averaged), 1e-300)
    found = 0.0
    for count, other in zip(reference, averaged, strict=True):
        if count > 0:
            share = count / whole
            found += share * (math.log(max(share, 1e-12)) - math.log(max(other / approximate, 1e-12)))
    return found


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
@pytest.mark.parametrize("bits", [4, 8])
def test_least_divergence_is_that_of_the_procedure_by_the_book(kind: str, bits: int) -> None:
    histogram = read(statistic(drawn(kind, 20_000)))
    expected = by_the_book(histogram.lower, histogram.upper, histogram.counts, bits)
    assert bounds(histogram, "entropy", bits) == pytest.approx(expected, rel=1e-9)


def test_least_divergence_cuts_off_what_is_rare() -> None:
    values = np.concatenate([np.abs(drawn("normal")), np.full(3, 100, np.float32)])
    _, high = bounds(read(statistic(values)), "entropy", 8)
    assert high < 60


def test_an_empty_histogram_is_refused() -> None:
    entry = statistic(np.ones(3, np.float32))
    entry.tensors["counts"].zero_()
    with pytest.raises(StepError, match=r"histogram of 'x': found no counts"):
        read(entry)


def test_another_policy_is_refused() -> None:
    with pytest.raises(UnknownName, match="minmax"):
        bounds(Histogram(np.zeros(1), np.ones(1), np.ones(1)), "max", 8)


@pytest.mark.parametrize("percentile", [50.0, 100.0, -1.0, float("nan")])
def test_another_percentile_is_refused(percentile: float) -> None:
    with pytest.raises(DataError, match="above 50 and below 100"):
        bounds(Histogram(np.zeros(1), np.ones(1), np.ones(1)), "percentile", 8, percentile)


@pytest.mark.parametrize("policy", _ranges.POLICIES)
def test_a_value_that_is_always_zero_has_a_range(policy: str) -> None:
    low, high = bounds(read(statistic(np.zeros(5, np.float32))), policy, 8)
    assert (low, high) == (0.0, 0.0)
    assert affine(low, high, 8, symmetric=False) == _ranges.Affine(1.0, 0, "uint8")


@given(low=st.floats(-1e6, 0), high=st.floats(0, 1e6), bits=st.sampled_from([4, 8]), symmetric=st.booleans())
@settings(max_examples=50, deadline=None)
def test_zero_is_exact_and_the_ends_are_met(low: float, high: float, bits: int, symmetric: bool) -> None:
    found = affine(low, high, bits, symmetric=symmetric)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    assert least <= found.zero <= most
    assert found.dtype == ("int" if symmetric else "uint") + str(bits)
    if max(high, -low) > 1e-30:
        assert (most - found.zero) * found.scale >= high - 0.51 * found.scale - 1e-6 * max(high, -low)
        assert (least - found.zero) * found.scale <= low + 0.51 * found.scale + 1e-6 * max(high, -low)


def test_normal_channels_count_as_their_draws_do() -> None:
    mean, variance = np.array([0.0, 2.0, -1.0]), np.array([1.0, 0.25, 4.0])
    generator = np.random.default_rng(0)
    values = mean + np.sqrt(variance) * generator.standard_normal((100_000, 3))
    found = from_gaussians(mean, variance)
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        expected = float(np.quantile(values, share))
        assert quantile(found, share) == pytest.approx(expected, rel=0.07, abs=0.03)
    assert found.counts.sum() == pytest.approx(1, abs=1e-3)
    assert from_gaussians(np.zeros(2), np.zeros(2)).high == 0
