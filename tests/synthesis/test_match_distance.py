"""The laws of every kind's distance between a batch and a record."""

from __future__ import annotations

import pytest
import torch

from dfmeta._catalog import KINDS

# A kind of two sites has a distance of two arguments, which is tested with the kind.
ALL = tuple(
    kind
    for kind in KINDS.names()
    if KINDS.has(kind, "match") and not getattr(KINDS.load(kind, "spec"), "PAIRED", False)
)
FEATURES, GROUPS = 5, 3


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64)
    samples = torch.randn(60, FEATURES, generator=generator, dtype=torch.float64) @ mixing
    return samples, torch.arange(60) % GROUPS


def record(kind, samples, group, rank=FEATURES):
    made = KINDS.load(kind, "accumulate").Accumulator(FEATURES, GROUPS, {"rank": rank})
    made.update(samples, group)
    # So many units that every pair may be kept.
    tensors = made.tensors(torch.full((GROUPS,), 1000), 10)
    found = {name: torch.from_numpy(array) for name, array in tensors.items()}
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def distance(kind, samples, group, tensors):
    return KINDS.load(kind, "match").distance(samples, group, tensors)


@pytest.mark.parametrize("kind", ALL)
def test_zero_where_batch_and_record_agree(kind, batch):
    """To the float32 of the record and the small constants that keep square roots smooth."""
    assert 0 <= float(distance(kind, *batch, record(kind, *batch))) < 1e-12


@pytest.mark.parametrize("kind", ALL)
def test_it_grows_with_displacement(kind, batch):
    samples, group = batch
    tensors = record(kind, *batch)
    way = torch.randn(FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = [float(distance(kind, samples + step * way, group, tensors)) for step in (0.0, 0.1, 0.2, 0.5, 1, 4)]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    # Squared error: twice as far is four times as much.
    assert found[2] == pytest.approx(4 * found[1], rel=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_it_grows_with_a_wrong_spread(kind, batch):
    samples, group = batch
    tensors = record(kind, *batch)
    means = torch.stack([samples[group == row].mean(0) for row in range(GROUPS)])[group]
    for factors in ((1, 1.2, 1.5, 3), (1, 0.8, 0.5, 0.0)):
        found = [float(distance(kind, means + f * (samples - means), group, tensors)) for f in factors]
        assert found == sorted(found)
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("kind", ALL)
def test_the_units_do_not_matter(kind, batch):
    """Recorded in volts or in millivolts, it is as far."""
    samples, group = batch
    shifted = samples * 1.3 + 0.2
    tensors, scaled = record(kind, *batch), record(kind, 1000 * samples, group)
    one = float(distance(kind, shifted, group, tensors))
    assert float(distance(kind, 1000 * shifted, group, scaled)) == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_a_group_meets_its_own_row(kind, batch):
    samples, group = batch
    tensors = record(kind, *batch)
    assert float(distance(kind, samples, (group + 1) % GROUPS, tensors)) > 0.01
    one = group == 1
    assert float(distance(kind, samples[one], group[one], tensors)) < 1e-12


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("rank", [FEATURES, 2])
def test_its_gradient_is_that_of_finite_differences(kind, batch, rank):
    samples, group = batch[0][:12] * 1.1 + 0.3, batch[1][:12]
    tensors = record(kind, *batch, rank)
    inputs = samples.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distance(kind, x, group, tensors), inputs)


@pytest.mark.parametrize("kind", ALL)
def test_its_gradient_is_finite_where_nothing_varies(kind, batch):
    """One sample of a group, or a constant feature, has no spread: the square root must stay smooth."""
    tensors = record(kind, *batch)
    for samples in (torch.zeros(1, FEATURES), torch.ones(6, FEATURES)):
        inputs = samples.double().requires_grad_()
        distance(kind, inputs, torch.zeros(len(samples), dtype=torch.int64), tensors).backward()
        assert torch.isfinite(inputs.grad).all()
