"""`noise-bn`: noise labelled with BatchNormalization in batch mode."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dfmeta.bundle import Bundle
from dfmeta.graph import Graph
from dfmeta.pipeline import make_task
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build


def by_batch(network, inputs):
    """The digits' network layer by layer in float64, each normalisation written out."""
    value = inputs.double()
    for module in network.double():
        if isinstance(module, torch.nn.BatchNorm2d):
            centred = value - value.mean((0, 2, 3), keepdim=True)
            spread = centred.square().mean((0, 2, 3), keepdim=True)
            value = centred / (spread + module.eps).sqrt()
            value = value * module.weight[:, None, None] + module.bias[:, None, None]
        else:
            value = module(value)
    network.float()
    return value


def test_it_teaches_with_the_statistics_of_the_batch(image_task, digits_network):
    task = image_task(0)
    made = build("noise-bn", task)
    inputs, labels = made.sample(200)
    with torch.no_grad():
        expected = by_batch(digits_network, inputs)
        found = made.teach(inputs)
        stored = task.logits(inputs)
    # float32 through two convolutions; the teacher's own answers are far away.
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    assert float((stored.double() - expected).abs().max()) > 1
    assert torch.equal(labels, expected.argmax(1))


def test_it_draws_what_noise_draws(image_task):
    """The same inputs for the same seed; only the labels are others."""
    inputs, labels = build("noise-bn", image_task(3)).sample(300)
    plain, others = build("noise", image_task(3)).sample(300)
    assert torch.equal(inputs, plain)
    assert not torch.equal(labels, others)


def test_few_inputs_are_labelled_among_others(image_task):
    """A batch of one would be normalised by itself alone."""
    one, few = build("noise-bn", image_task(3)).sample(1), build("noise-bn", image_task(3)).sample(64)
    assert torch.equal(one[0], few[0][:1])
    assert torch.equal(one[1], few[1][:1])


def test_without_batch_normalization_it_is_noise(vector_task):
    made, plain = build("noise-bn", vector_task(1)), build("noise", vector_task(1))
    for found, expected in zip(made.sample(100), plain.sample(100), strict=True):
        assert torch.equal(found, expected)


def test_noise_bn_needs_no_records(image_task):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    assert torch.isfinite(build("noise-bn", bare).sample(10)[0]).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(digits_bundle):
    bundle = Bundle.open(digits_bundle)
    task = make_task(bundle, Graph.from_bytes(bundle.graph_bytes(), "graph"), 0, "cuda")
    assert all(tensor.device.type == "cuda" for tensor in build("noise-bn", task).sample(10))
