"""Every kind against a slow float64 reference, and the laws of merging, over whatever the catalogue lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfmeta._catalog import KINDS

RANK = 3
CONFIGURATION = {"rank": RANK}
ALL = KINDS.names()


def accumulator(kind: str, features: int, groups: int):
    return KINDS.load(kind, "accumulate").Accumulator(features, groups, CONFIGURATION)


def filled(kind, samples, group, groups, cuts=()):
    made = accumulator(kind, samples.shape[1], groups)
    for rows in np.split(np.arange(len(samples)), sorted(cuts)):
        if len(rows):
            made.update(torch.from_numpy(samples[rows]), torch.from_numpy(group[rows]))
    return made


def state(made):
    return {name: value for name, value in vars(made).items() if isinstance(value, torch.Tensor)}


def same(one, other, rtol=1e-9):
    """Equal states, relative to the largest entry of each (its scale)."""
    for name, value in state(one).items():
        if value.dtype == torch.int64:
            assert torch.equal(value, state(other)[name]), name
            continue
        scale = max(float(value.abs().max()), 1e-30)
        assert float((value - state(other)[name]).abs().max()) <= rtol * scale, name


@st.composite
def batches(draw):
    rows, features, groups = draw(st.integers(0, 12)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offset = draw(st.sampled_from([0.0, 1.0, -50.0]))
    return generator.normal(offset, 1, (rows, features)), generator.integers(0, groups, rows), groups


def reference(samples: np.ndarray) -> dict[str, np.ndarray]:
    mean = samples.mean(0)
    covariance = (samples - mean).T @ (samples - mean) / len(samples)
    values, vectors = np.linalg.eigh(covariance)
    return {
        "mean": mean,
        "var": np.diag(covariance),
        "values": values[::-1],
        "vectors": vectors.T[::-1],
        "covariance": covariance,
    }


@pytest.fixture
def data():
    generator = np.random.default_rng(7)
    mixing = generator.normal(size=(6, 6))
    samples = generator.normal(size=(400, 6)) @ mixing + generator.normal(size=6)
    return samples, np.arange(400) % 4


def test_moments_equal_the_reference(data):
    samples, group = data
    made = filled("moments", samples, group, 4, cuts=(1, 50, 333))
    tensors = made.tensors(torch.full((4,), 100), 10)
    for row in range(4):
        expected = reference(samples[group == row])
        np.testing.assert_allclose(made.mean[row], expected["mean"], rtol=1e-12)
        np.testing.assert_allclose(tensors["mean"][row], expected["mean"], rtol=1e-6)
        np.testing.assert_allclose(tensors["var"][row], expected["var"], rtol=1e-6)
    np.testing.assert_array_equal(tensors["count"], [100] * 4)


def test_spectrum_equals_the_reference(data):
    samples, group = data
    tensors = filled("spectrum", samples, group, 4, cuts=(1, 50, 333)).tensors(torch.full((4,), 100), 10)
    for row in range(4):
        expected = reference(samples[group == row])
        np.testing.assert_allclose(tensors["eigenvalues"][row], expected["values"][:RANK], rtol=1e-5)
        overlap = np.abs((tensors["eigenvectors"][row] * expected["vectors"][:RANK]).sum(1))
        np.testing.assert_allclose(overlap, 1, atol=1e-5)
        residual = np.trace(expected["covariance"]) - expected["values"][:RANK].sum()
        np.testing.assert_allclose(tensors["residual_trace"][row], residual, rtol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_pooled_is_the_sum_of_the_groups(kind, data):
    samples, group = data
    pooled = filled(kind, samples, group, 4).pooled()
    same(pooled, filled(kind, samples, np.zeros_like(group), 1))


@pytest.mark.parametrize("kind", ALL)
@given(batch=batches(), cut=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_merging_equals_one_pass(kind, batch, cut):
    samples, group, groups = batch
    left = filled(kind, samples[:cut], group[:cut], groups)
    left.merge(filled(kind, samples[cut:], group[cut:], groups))
    same(left, filled(kind, samples, group, groups))


@pytest.mark.parametrize("kind", ALL)
@given(batch=batches(), cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)))
@settings(max_examples=60, deadline=None)
def test_merging_commutes_and_associates(kind, batch, cuts):
    samples, group, groups = batch
    first, second = sorted(cuts)
    parts = [slice(None, first), slice(first, second), slice(second, None)]

    def part(number):
        return filled(kind, samples[parts[number]], group[parts[number]], groups)

    forwards, backwards, nested = part(0), part(2), part(0)
    forwards.merge(part(1))
    forwards.merge(part(2))
    backwards.merge(part(1))
    backwards.merge(part(0))
    inner = part(1)
    inner.merge(part(2))
    nested.merge(inner)
    same(forwards, backwards)
    same(forwards, nested)


@pytest.mark.parametrize("kind", ALL)
@given(batch=batches())
@settings(max_examples=30, deadline=None)
def test_empty_is_the_identity(kind, batch):
    samples, group, groups = batch
    made, expected = filled(kind, samples, group, groups), filled(kind, samples, group, groups)
    made.merge(accumulator(kind, samples.shape[1], groups))
    same(made, expected, rtol=0)
    empty = accumulator(kind, samples.shape[1], groups)
    empty.merge(expected)
    same(empty, expected, rtol=1e-15)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_to_the_layout_and_pass_their_own_check(kind, dtype, data):
    samples, group = data
    made = accumulator(kind, 6, 4)
    made.update(torch.from_numpy(samples).to(dtype), torch.from_numpy(group % 3))
    spec = KINDS.load(kind, "spec")
    tensors = made.tensors(made.count, 10)
    layout = spec.layout(6, 4, CONFIGURATION)
    assert set(tensors) == set(layout)
    for name, expected in layout.items():
        assert tensors[name].shape == expected.shape, name
        assert str(tensors[name].dtype) in expected.dtypes, name
    assert spec.check(tensors, "record") == []
    assert tensors["count"][3] == 0


def test_a_huge_mean_with_a_tiny_variance_is_exact():
    generator = np.random.default_rng(0)
    small = generator.normal(0, 1e-3, (1000, 2))
    samples = small + 1e6
    made = filled("moments", samples, np.zeros(1000, np.int64), 1, cuts=range(100, 1000, 100))
    expected = (samples - samples.mean(0)).var(0)
    np.testing.assert_allclose(made.tensors(made.count, 10)["var"][0], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_constant_features_and_single_samples_have_no_variance(kind):
    for samples in (np.full((20, 3), 4.25), np.full((1, 3), -2.0)):
        made = filled(kind, samples, np.zeros(len(samples), np.int64), 1)
        tensors = made.tensors(made.count, 10)
        np.testing.assert_array_equal(tensors["mean"][0], samples[0].astype(np.float32))
        assert not tensors.get("var", tensors.get("eigenvalues")).any()
        assert KINDS.load(kind, "spec").check(tensors, "record") == []


def test_a_group_keeps_one_pair_for_each_ten_units(data):
    samples, group = data
    made = filled("spectrum", samples, group, 4)
    tensors = made.tensors(torch.tensor([100, 29, 9, 0]), 10)
    kept = (tensors["eigenvalues"] > 0).sum(1)
    np.testing.assert_array_equal(kept, [3, 2, 0, 0])
    total = filled("moments", samples, group, 4).tensors(made.count, 10)["var"].sum(1)
    np.testing.assert_allclose(tensors["eigenvalues"].sum(1) + tensors["residual_trace"], total, rtol=1e-5)


def test_suppressing_leaves_no_trace(data):
    samples, group = data
    for kind in ALL:
        made = filled(kind, samples, group, 4)
        before = {name: value.clone() for name, value in state(made).items()}
        whole, made = made, made.without([1, 2])
        tensors = made.tensors(made.count, 10)
        for name, values in tensors.items():
            assert not values[[1, 2]].any(), name
        kept = ~np.isin(group, [1, 2])
        same(made.pooled(), filled(kind, samples[kept], np.zeros(kept.sum(), np.int64), 1))
        for name, value in state(whole).items():
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ALL)
def test_the_memory_that_is_announced_is_the_memory_that_is_held(kind):
    made = accumulator(kind, 7, 3)
    held = sum(value.nbytes for value in state(made).values())
    assert KINDS.load(kind, "accumulate").accumulator_bytes(7, 3, CONFIGURATION) == held
