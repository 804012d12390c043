"""Moments and spectra against a slow float64 reference. The laws of every kind are in test_kind_contract.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.errors import StepError
from dfmeta.kinds._accumulators import scripted

RANK = 3
CONFIGURATION = {"rank": RANK}
ALL = ("moments", "spectrum")


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


@pytest.mark.parametrize("positions", [0, 5])
def test_numbers_whose_squares_overflow_float32(positions):
    generator = np.random.default_rng(0)
    shape = (40, positions, 400) if positions else (40, 400)
    samples = generator.normal(1e19, 1e18, shape).astype(np.float32)
    made = KINDS.load("moments", "accumulate").Accumulator(400, 1, {})
    made.update(torch.from_numpy(samples), torch.zeros(40, dtype=torch.int64))
    rows = samples.reshape(-1, 400).astype(np.float64)
    np.testing.assert_allclose(made.squares[0] / len(rows), rows.var(0), rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 3, 70])
@pytest.mark.parametrize("positions", [(), (9,), (5, 1000)])
def test_float32_batches_are_within_a_millionth_of_float64(positions, groups):
    """Whatever the mean is beside the deviation, and however it drifts from batch to batch."""
    generator = np.random.default_rng(3)
    features = {(): 300, (9,): 40, (5, 1000): 3}[positions]
    mean = np.where(np.arange(features) % 3 == 0, 0, 10.0 ** generator.integers(-2, 4, features))
    made = KINDS.load("moments", "accumulate").Accumulator(features, groups, {})
    taken, owners = [], []
    for drift in (0, 3, -1):
        noise = (
            generator.normal(size=(220, features, *positions))
            + drift
            + generator.normal(size=(220, features, *[1] * len(positions)))
        )
        batch, group = (
            (mean.reshape(-1, *[1] * len(positions)) + noise).astype(np.float32),
            generator.integers(0, groups, 220),
        )
        made.update(torch.from_numpy(batch).movedim(1, -1), torch.from_numpy(group))
        taken.append(np.moveaxis(batch, 1, -1).reshape(220, -1, features).astype(np.float64))
        owners.append(group)
    samples, group = np.concatenate(taken), np.concatenate(owners)
    for row in set(group.tolist()):
        rows = samples[group == row].reshape(-1, features)
        assert made.count[row] == len(rows)
        np.testing.assert_allclose(made.mean[row], rows.mean(0), rtol=0, atol=1e-6 * rows.std(0).max() + 1e-12)
        np.testing.assert_allclose(made.squares[row] / len(rows), rows.var(0), rtol=1e-6, atol=1e-12)


def test_more_units_than_float32_sums_at_once():
    generator = np.random.default_rng(4)
    samples = generator.normal(5, 1, (9000, 300)).astype(np.float32)
    made = filled("moments", samples, np.zeros(9000, np.int64), 1)
    np.testing.assert_allclose(made.squares[0] / 9000, samples.astype(np.float64).var(0), rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 400), (20, 50, 400), (20, 3)])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_moments_refuse_what_is_not_finite_and_take_nothing_in(shape, bad):
    samples = torch.ones(shape)
    samples[7].view(-1)[2] = bad
    made = KINDS.load("moments", "accumulate").Accumulator(shape[-1], 2, {})
    with pytest.raises(StepError, match="NaN or infinity"):
        made.update(samples, torch.arange(20) % 2)
    assert not any(array.any() for array in made.state().values())


def test_scripted_functions_do_what_they_say_in_python():
    """Where TorchScript is not there any more, the same lines run as Python."""

    def doubled(values: torch.Tensor, times: int) -> torch.Tensor:
        for _ in range(times):
            values = values * 2
        return values

    values = torch.arange(4.0)
    assert torch.equal(scripted(doubled)(values, 3), doubled(values, 3))


def test_without_torchscript_the_function_itself_is_used(monkeypatch):
    monkeypatch.delattr(torch.jit, "script")
    assert scripted(len) is len
