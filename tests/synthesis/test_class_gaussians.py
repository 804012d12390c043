"""The Gaussians of classes and their couplings, against the covariances they were recorded from."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.records.published import Statistic
from dfmeta.synthesis._gaussians import ClassGaussians, Coupling


def record(kind, samples, rank, paired=None):
    """A record by class of one class, in float64 as far as the kind gives it."""
    configuration = {"rank": rank, **({} if paired is None else {"paired_feature_count": paired.shape[1]})}
    made = KINDS.load(kind, "accumulate").Accumulator(samples.shape[1], 1, configuration)
    group = torch.zeros(len(samples), dtype=torch.int64)
    made.update(samples, group, *([] if paired is None else [paired]))
    tensors = {name: torch.from_numpy(array) for name, array in made.tensors(torch.tensor([10**6]), 10).items()}
    tensors = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return Statistic("r", "s", "v", kind, True, "flattened", 1, tensors, configuration)


@pytest.fixture(scope="module")
def two_sites():
    """Samples ``[n, 6]`` and ``[n, 5]`` float64 that vary together."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 8, generator=generator, dtype=torch.float64)
    first, second = (torch.randn(8, size, generator=generator, dtype=torch.float64) for size in (6, 5))
    noise = torch.randn(500, 5, generator=generator, dtype=torch.float64)
    return hidden @ first + 1, hidden @ second + 0.5 * noise - 2


def covariance(samples, others=None):
    centred = samples - samples.mean(0)
    others = samples if others is None else others
    return centred.T @ (others - others.mean(0)) / len(samples)


def root(gaussians):
    """``S^(1/2)``, one unit vector after the other."""
    size = gaussians.features
    unit = torch.eye(size, dtype=torch.float64)
    return gaussians.colour(unit, torch.zeros(size, dtype=torch.int64)) - gaussians.mean[0]


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_gaussian_is_that_of_the_record(two_sites, rank):
    """Recorded directions keep their eigenvalues, the others share the rest of the trace evenly."""
    spectrum = record("spectrum", two_sites[0], rank)
    found = root(ClassGaussians.of(spectrum))
    values, vectors = torch.linalg.eigh(covariance(two_sites[0]))
    values = values.flip(0)
    wanted = torch.cat([values[:rank], values[rank:].mean().expand(6 - rank) if rank < 6 else values[:0]])
    vectors = vectors.flip(1)
    torch.testing.assert_close(found @ found, vectors @ wanted.diag() @ vectors.T, rtol=0, atol=1e-5)
    assert float(ClassGaussians.of(spectrum).variance()[0]) == pytest.approx(float(values.mean()), rel=1e-6)


def test_a_class_with_fewer_directions_than_room_spreads_the_rest(two_sites):
    spectrum = record("spectrum", two_sites[0], 6)
    tensors = {name: tensor.clone() for name, tensor in spectrum.tensors.items()}
    left_out = tensors["eigenvalues"][0, 2:].sum()
    tensors["eigenvalues"][0, 2:], tensors["eigenvectors"][0, 2:] = 0, 0
    tensors["residual_trace"][0] = left_out
    cut = root(ClassGaussians.of(dataclasses.replace(spectrum, tensors=tensors)))
    torch.testing.assert_close(cut, root(ClassGaussians.of(record("spectrum", two_sites[0], 2))), rtol=0, atol=1e-5)


def joint(coupling, first, second):
    """Covariances of the two sites' standard normal numbers, exactly: coupling is linear in both."""
    white = torch.eye(first + second, dtype=torch.float64)
    labels = torch.zeros(first + second, dtype=torch.int64)
    found = coupling.couple(white[:, :first], white[:, first:], labels)
    return found[:first], found.T @ found


def test_coupled_sites_have_the_recorded_cross_covariance(two_sites):
    first, second = two_sites
    before, after = (ClassGaussians.of(record("spectrum", part, part.shape[1])) for part in two_sites)
    coupling = Coupling.of(record("cross-spectrum", first, 5, second), before, after)
    cross, own = joint(coupling, 6, 5)
    torch.testing.assert_close(root(before) @ cross @ root(after), covariance(first, second), rtol=0, atol=1e-5)
    torch.testing.assert_close(own, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-10)
    assert 0 < float(coupling.correlations.min()) < float(coupling.correlations.max()) < 1


@pytest.mark.parametrize("factor", [1.0, 100.0])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_whatever_the_records_say_each_site_keeps_its_own_gaussian(two_sites, rank, factor):
    """Cut or noised records can imply correlations above 1."""
    before, after = (ClassGaussians.of(record("spectrum", part, rank)) for part in two_sites)
    cross = record("cross-spectrum", two_sites[0], rank, two_sites[1])
    more = {**cross.tensors, "singular_values": factor * cross.tensors["singular_values"]}
    coupling = Coupling.of(dataclasses.replace(cross, tensors=more), before, after)
    assert coupling.correlations.shape == (1, rank)
    assert float(coupling.correlations.max()) <= 1
    torch.testing.assert_close(joint(coupling, 6, 5)[1], torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-10)


def test_a_site_that_does_not_vary_is_coupled_to_nothing(two_sites):
    constant = torch.ones_like(two_sites[1])
    before, after = (ClassGaussians.of(record("spectrum", part, 3)) for part in (two_sites[0], constant))
    coupling = Coupling.of(record("cross-spectrum", two_sites[0], 3, constant), before, after)
    assert float(coupling.correlations.max()) < 1e-6
    assert torch.isfinite(joint(coupling, 6, 5)[1]).all()
