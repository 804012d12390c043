"""What `class-subspace` promises beyond the contract."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfmeta._catalog import KINDS
from dfmeta.errors import StepError
from dfmeta.records import PublishedRecords
from dfmeta.records.published import Statistic
from dfmeta.synthesis import build
from dfmeta.synthesis.class_subspace import ValueMap, interpolated, recorded_quantiles

DRAWS = 40_000
VALUES = st.floats(-(2.0**100), 2.0**100, width=32)


def histogram(values, by_class=False):
    """The record of these values, as a publisher makes it."""
    made = KINDS.load("histogram", "accumulate").Accumulator(values.shape[1], 1, {})
    made.update(values, torch.zeros(len(values), dtype=torch.int64))
    tensors = made.tensors(torch.tensor([len(values)]), 1)
    tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}
    return Statistic("h", "s0000", "image", "histogram", by_class, "flattened", 1, tensors)


def altered(task, change):
    """The task with each record replaced by what ``change`` gives; None leaves it out."""
    kept = [change(entry) for entry in task.records]
    return dataclasses.replace(task, records=PublishedRecords(tuple(entry for entry in kept if entry)))


def with_histogram(task, values, **choices):
    found = dataclasses.replace(histogram(values, **choices), value=task.input_name)
    bare = without_histograms(task)
    return dataclasses.replace(bare, records=PublishedRecords((*bare.records, found)))


def without_histograms(task):
    return altered(task, lambda entry: None if entry.kind == "histogram" else entry)


def unbounded(task):
    infinite = torch.tensor(float("inf"))
    return dataclasses.replace(task, low=-infinite, high=infinite)


def samples_of(task, label, **settings):
    """``[n, d]`` float64 samples of one class."""
    made = build("class-subspace", task, {name: str(value) for name, value in settings.items()})
    inputs, labels = made.sample(DRAWS)
    return inputs[labels == label].flatten(1).double()


# --- samples of the Gaussians


@pytest.mark.parametrize("label", [0, 7])
def test_samples_have_the_mean_and_the_covariance_of_the_record(task, label):
    given = unbounded(task(0))
    found = samples_of(given, label, sharpen=0)
    parts = given.records.of(given.input_name, "spectrum", by_class=True).tensors
    values, vectors = parts["eigenvalues"][label].double(), parts["eigenvectors"][label].double()
    scale = float(values[0])
    torch.testing.assert_close(found.mean(0), parts["mean"][label].double(), rtol=0, atol=5 * (scale / 4000) ** 0.5)
    wanted = vectors.T @ values.diag() @ vectors
    assert float((torch.cov(found.T, correction=0) - wanted).abs().max()) < 0.1 * scale
    outside = found - parts["mean"][label]
    outside = outside - outside @ vectors.T @ vectors
    assert float(outside.abs().max()) < 1e-4 * scale**0.5


@pytest.mark.parametrize("residual", [0.0, 0.4, 1.0])
def test_the_residual_is_a_share_of_what_was_left_out(task, residual):
    given = unbounded(task(0))
    parts = given.records.of(given.input_name, "spectrum", by_class=True).tensors
    found = samples_of(given, 3, sharpen=0, residual=residual)
    wanted = float(parts["eigenvalues"][3].sum() + residual * parts["residual_trace"][3])
    assert float(found.var(0).sum()) == pytest.approx(wanted, rel=0.03)


def test_classes_are_drawn_alike(image_task):
    labels = build("class-subspace", image_task(0)).sample(DRAWS)[1]
    often = torch.bincount(labels, minlength=10) / DRAWS
    assert float((often - 0.1).abs().max()) < 0.01


def test_samples_are_seen_as_their_class(image_task):
    task = image_task(0)
    inputs, labels = build("class-subspace", task).sample(2000)
    with torch.no_grad():
        assert (task.logits(inputs).argmax(1) == labels).float().mean() > 0.8


def test_withheld_classes_are_not_made(image_task):
    def withheld(rows):
        def change(entry):
            tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
            for tensor in tensors.values() if entry.by_class else ():
                tensor[rows] = 0
            return dataclasses.replace(entry, tensors=tensors)

        return change

    made = build("class-subspace", altered(image_task(0), withheld([2, 5])))
    assert set(made.sample(500)[1].tolist()) == set(range(10)) - {2, 5}
    with pytest.raises(StepError, match="no class that was published"):
        build("class-subspace", altered(image_task(0), withheld(list(range(10)))))


# --- the map of values


@pytest.mark.parametrize("by_class", [False, True])
def test_sharpened_values_have_the_recorded_distribution(image_task, digits, by_class):
    """At quantiles: within a level of 1 % where the distribution is smooth, and within a bin in value."""
    pixels = digits[0].flatten(1)
    task = with_histogram(image_task(0), pixels, by_class=by_class)
    made = build("class-subspace", task)
    counts = torch.bincount(digits[1], minlength=10)
    labels = torch.arange(10).repeat_interleave(10 * counts)
    found = made._map(made._draw(labels)).flatten().numpy()
    real = pixels.flatten().numpy()
    for level in (0.05, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97):
        low, value, high = np.quantile(real, [max(level - 0.01, 0), level, min(level + 0.01, 1)])
        assert low * 15 / 16 - 1e-6 <= np.quantile(found, level) <= high * 17 / 16 + 1e-6, (level, value)
    # Half of all pixels are black, and stay so.
    assert (found < 1e-6).mean() == pytest.approx((real == 0).mean(), abs=0.01)
    plain = made._draw(labels).flatten().numpy()
    assert (np.abs(plain) < 1e-6).mean() < 0.5 * (real == 0).mean()


def test_without_a_histogram_or_without_sharpening_values_are_only_clipped(image_task, digits):
    inputs = build("class-subspace", without_histograms(image_task(0)), {"sharpen": "1"}).sample(50)[0]
    plain = build("class-subspace", with_histogram(image_task(0), digits[0].flatten(1)), {"sharpen": "0"})
    assert torch.equal(plain.sample(50)[0], inputs)
    sharp = build("class-subspace", with_histogram(image_task(0), digits[0].flatten(1)), {"sharpen": "1"})
    assert not torch.equal(sharp.sample(50)[0], inputs)


def test_a_histogram_that_was_withheld_is_none(image_task, digits):
    task = with_histogram(image_task(0), digits[0].flatten(1))

    def change(entry):
        if entry.kind != "histogram":
            return entry
        return dataclasses.replace(entry, tensors={name: tensor * 0 for name, tensor in entry.tensors.items()})

    assert build("class-subspace", altered(task, change))._map is None


@given(st.lists(VALUES, min_size=1, max_size=60), st.lists(st.floats(0, 1), min_size=1))
def test_recorded_quantiles_are_those_of_the_values_to_a_bin(values, levels):
    array = np.array(values, np.float32)
    found = recorded_quantiles(histogram(torch.from_numpy(array)[:, None]), torch.tensor(levels).double()).numpy()
    wanted = np.quantile(array.astype(np.float64), levels, method="inverted_cdf")
    # At a level between two values either is right.
    other = np.quantile(array.astype(np.float64), levels, method="higher")
    least, most = (np.minimum(wanted, other), np.maximum(wanted, other))
    slack = 1e-37
    assert (found >= least - np.abs(least) / 15 - slack).all()
    assert (found <= most + np.abs(most) / 15 + slack).all()


def test_the_outermost_bins_stay_finite():
    values = torch.tensor([[torch.finfo(torch.float32).max], [torch.finfo(torch.float32).min]])
    found = recorded_quantiles(histogram(values), torch.tensor([0.0, 0.5, 1.0]).double()).float()
    assert torch.isfinite(found).all()


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20, unique=True),
    st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=30),
    st.integers(0, 99),
)
def test_interpolation_is_numpys(points, values, seed):
    found = np.sort(np.array(points, np.float64))
    wanted = np.sort(np.random.default_rng(seed).normal(size=len(points)))
    got = interpolated(torch.tensor(values).double(), torch.from_numpy(found), torch.from_numpy(wanted))
    np.testing.assert_allclose(got.numpy(), np.interp(np.array(values), found, wanted), rtol=1e-9, atol=1e-9)


def test_the_map_rises_and_gives_a_shared_value_the_middle_of_its_levels():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(5000, generator=generator).clamp(min=0)
    record = histogram(torch.rand(3000, 1, generator=generator))
    made = ValueMap.between(samples, record)
    assert (made.found.diff() > 0).all()
    assert (made.wanted.diff() >= 0).all()
    # Half of the samples are 0: a quarter of the uniform values lies below their middle.
    assert float(made(torch.tensor([0.0]))) == pytest.approx(0.25, abs=0.02)
    assert float(made(torch.tensor([-5.0]))) == float(made(torch.tensor([0.0])))
    assert float(made(torch.tensor([99.0]))) == pytest.approx(1.0, abs=0.07)


def test_samples_that_do_not_vary_at_all_become_the_median():
    record = histogram(torch.rand(3000, 1, generator=torch.Generator().manual_seed(0)))
    made = ValueMap.between(torch.full((100,), 3.0), record)
    assert float(made(torch.tensor([3.0]))) == pytest.approx(0.5, abs=0.03)


# --- what it refuses


def test_a_missing_spectrum_of_the_input_names_the_preset(image_task):
    for missing in (lambda e: e.kind == "spectrum", lambda e: e.kind == "spectrum" and e.by_class):
        task = altered(image_task(0), lambda entry, missing=missing: None if missing(entry) else entry)
        with pytest.raises(StepError, match=r"records of 'image': found no 'spectrum' of each class.*'spectral'"):
            build("class-subspace", task)


def test_a_spectrum_of_channels_says_nothing_of_places(image_task):
    def change(entry):
        return dataclasses.replace(entry, features="channel")

    with pytest.raises(StepError, match=r"'spectrum' of channel features.*--features flattened"):
        build("class-subspace", altered(image_task(0), change))


def test_no_sample_is_subnormal(image_task):
    """The bin of zero begins at the smallest of all numbers, which networks take ten times as long with."""
    made = build("class-subspace", image_task(0))
    values = made.sample(300)[0]
    tiny = torch.finfo(torch.float32).tiny

    def subnormal(found):
        return (found != 0) & (found.abs() < tiny)

    assert subnormal(interpolated(values, made._map.found, made._map.wanted)).any()
    assert not subnormal(values).any()
    assert 0.2 < float((values == 0).float().mean()) < 0.8
