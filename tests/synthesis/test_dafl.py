"""`dafl` and `dafl-conditional`: certain, balanced batches; the losses; the generator that DFAD shares."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from dfmeta.bundle import Bundle
from dfmeta.errors import DataError, Diverged, StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline import make_task
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build, training
from dfmeta.synthesis._dafl import last_layer_input
from dfmeta.synthesis._dafl_generator import InputGenerator, PaperGenerator

# The paper's rate of 0.2 needs its 24,000 steps.
SETTINGS = {"batch": "96", "width": "12", "iterations": "150", "lr": "0.01"}
BOTH = ("dafl", "dafl-conditional")


def made_by(method, task, **settings):
    made = build(method, task, SETTINGS | settings)
    return made, [made.advance() for _ in range(made.steps)]


def predictions(task, inputs):
    with torch.no_grad():
        return task.logits(inputs).softmax(1)


def entropy(probabilities):
    mean = probabilities.mean(0)
    return float(-(mean * mean.clamp(min=1e-12).log()).sum())


@pytest.mark.parametrize(("method", "certain"), [("dafl", 0.65), ("dafl-conditional", 0.85)])
def test_batches_become_certain_and_balanced(image_task, method, certain):
    task = image_task(0)
    made, losses = made_by(method, task)
    inputs, labels = made.sample(600)
    found = predictions(task, inputs)
    noise = predictions(task, build("noise", task).sample(600)[0])
    assert losses[-1] < losses[0]
    assert entropy(found) > 0.97 * math.log(10) > entropy(noise)
    assert float(found.max(1).values.mean()) > certain
    assert float((found.argmax(1) == labels).float().mean()) > 0.95


def test_vectors_become_certain_too(vector_task):
    task = vector_task(0)
    made, _ = made_by("dafl", task, iterations="60")
    found = predictions(task, made.sample(600)[0])
    assert entropy(found) > 0.95 * math.log(10)


@pytest.mark.parametrize("method", BOTH)
def test_the_loss_is_the_papers(image_task, method):
    """Each term written out in float64, on the very batch: nothing was drawn in between."""
    made = build(method, image_task(7), SETTINGS)
    twin = build(method, image_task(7), SETTINGS)
    labels = twin._task.integers(10, 96) if method == "dafl-conditional" else None
    with torch.no_grad():
        inputs = twin._generator.make(96, labels)
        values = twin._task.values(inputs, [last_layer_input(twin._task), "logits"])
    logits, feature = values["logits"].double(), values[last_layer_input(twin._task)].double()
    one_hot = activation = 0.0
    mean = [0.0] * 10
    for row in range(96):
        exponentials = [math.exp(float(v)) for v in logits[row]]
        chances = [e / sum(exponentials) for e in exponentials]
        target = chances.index(max(chances)) if labels is None else int(labels[row])
        one_hot -= math.log(chances[target]) / 96
        activation += float(feature[row].abs().sum()) / feature.numel()
        mean = [m + c / 96 for m, c in zip(mean, chances, strict=True)]
    information = sum(m * math.log10(m) for m in mean)
    assert made.advance() == pytest.approx(one_hot + 5 * information - 0.1 * activation, rel=1e-5)


def test_the_features_are_what_the_last_layer_reads(image_task, vector_task):
    task = image_task(0)
    inputs = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    name = last_layer_input(task)
    feature = task.values(inputs, [name])[name]
    assert feature.shape == (3, 64)
    weight = [tensor for _, tensor in task.teacher.named_initializers() if tensor.shape in ((10, 64), (64, 10))]
    scores = feature @ (weight[0] if weight[0].shape[0] == 64 else weight[0].T)
    offset = task.logits(inputs) - scores
    torch.testing.assert_close(offset, offset[:1].expand(3, 10), rtol=1e-4, atol=1e-4)
    task = vector_task(0)
    assert task.values(torch.zeros(2, 64), [last_layer_input(task)])[last_layer_input(task)].shape == (2, 24)


def test_a_branch_that_does_not_lead_to_the_output_is_not_the_last_layer(image_task):
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.aside, self.last = nn.Linear(64, 7), nn.Linear(64, 5), nn.Linear(7, 10)

        def forward(self, x):
            x = x.flatten(1)
            return self.last(self.first(x).relu()), self.aside(x)

    names = {"input_names": ["image"], "output_names": ["logits", "aside"]}
    graph = export_module(Branched().eval(), (torch.zeros(1, 1, 8, 8),), **names, dynamic_batch=True)
    task = dataclasses.replace(image_task(0), teacher=TorchGraph(graph))
    name = last_layer_input(task)
    assert task.values(torch.zeros(2, 1, 8, 8), [name])[name].shape == (2, 7)


def test_a_model_without_a_layer(image_task):
    names = {"input_names": ["image"], "output_names": ["logits"]}
    graph = export_module(nn.Sequential(nn.Flatten(), nn.Softmax(1)).eval(), (torch.zeros(1, 1, 8, 8),), **names)
    with pytest.raises(StepError, match="model: found no layer with weights before the output"):
        build("dafl", dataclasses.replace(image_task(0), teacher=TorchGraph(graph)))


def test_a_conditional_generator_obeys_the_label(image_task):
    made = build("dafl-conditional", image_task(0), SETTINGS)
    network, noise = made._generator.network, torch.randn(40, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (network(noise, torch.full((40,), label)) for label in (3, 4))
    assert float((first - second).abs().max()) > 0.01


def test_it_learns_beside_the_student_step_by_step(image_task):
    for method in BOTH:
        assert build(method, image_task(0), SETTINGS).student_steps == 1
        assert dict(training(method))["steps"] == 200 * 120


def test_it_needs_no_records(image_task):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    for method in BOTH:
        assert math.isfinite(build(method, bare, SETTINGS).advance())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 5, 7), (1, 4, 9), (64,), (3, 10), (1, 2, 2)])
def test_the_generator_fits_any_input(shape):
    """And ends with mean 0 and variance 1 in each channel, or in all where there are no channels."""
    generator = torch.Generator().manual_seed(0)
    network = PaperGenerator(shape, 20, 0, 6, 1e-5, generator)
    with torch.no_grad():
        made = network(torch.randn(50, 20, generator=generator))
    assert made.shape == (50, *shape)
    by_channel = made.reshape(50, shape[0] if len(shape) > 1 else 1, -1).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(by_channel.mean(1), torch.zeros(len(by_channel)).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(by_channel.var(1), torch.ones(len(by_channel)).double(), atol=0.02, rtol=0)


def test_the_generator_has_the_papers_size():
    """128 and 64 maps: its linear layer and convolutions, weights and biases, and three pairs of scales."""
    network = PaperGenerator((1, 32, 32), 100, 0, 128, 0.8, torch.Generator())
    layers = (100 + 1) * 128 * 64 + (128 * 9 + 1) * 128 + (128 * 9 + 1) * 64 + 64 * 9 + 1
    assert sum(parameter.numel() for parameter in network.parameters()) == layers + 2 * (128 + 128 + 64)


def test_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (
        PaperGenerator((1, 8, 8), 9, 0, 6, 0.8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert all(not torch.equal(a, c) for a, _, c in pairs if a.dim() > 1)


@pytest.fixture
def inputs_of(image_task):
    """An untrained generator of inputs, in batches of 80."""
    return InputGenerator(image_task(0), "dafl", latent=10, width=8, batch=80, epsilon=0.8)


def test_inputs_have_the_scale_and_the_range_of_the_input(inputs_of, digits):
    inputs = inputs_of.sample(800)
    assert float(inputs.min()) >= 0
    assert float(inputs.max()) <= 1
    # Clipping takes off what lies beyond; most does not.
    assert float(inputs.mean()) == pytest.approx(float(digits[0].mean()), abs=0.1)
    assert float(inputs.std()) == pytest.approx(float(digits[0].std()), rel=0.3)


def test_gradients_pass_the_clipping(inputs_of):
    """As if it were not there: the gradient of a clipped input is that of the raw one."""
    inputs = inputs_of.make(80)
    assert bool(((inputs == 0) | (inputs == 1)).any())
    raw = inputs_of.network(torch.randn(80, 10, generator=torch.Generator().manual_seed(0)))
    found = []
    for output in (inputs_of._mean + inputs_of._scale * raw, inputs_of._straight(raw)):
        (grad,) = torch.autograd.grad((output * torch.arange(64.0).reshape(8, 8)).sum(), raw, retain_graph=True)
        found.append(grad)
    assert torch.equal(*found)


def test_few_inputs_are_normalised_among_others(image_task):
    """One input alone would have its own mean and variance, whatever the noise."""
    first, second = (
        InputGenerator(image_task(0), "dafl", latent=10, width=8, batch=80, epsilon=0.8).sample(count)
        for count in (1, 64)
    )
    assert torch.equal(first, second[:1])


@pytest.mark.parametrize("method", BOTH)
def test_a_batch_of_one(image_task, method):
    with pytest.raises(DataError, match=f"{method}, batch: found 1, expected 2 or more"):
        build(method, image_task(0), {"batch": "1"})


@pytest.mark.parametrize("method", BOTH)
def test_a_loss_that_is_not_finite_names_the_step(image_task, method):
    made = build(method, image_task(0), SETTINGS | {"lr": "1e30"})
    made.advance()
    with pytest.raises(Diverged, match=f"{method}, step 2: found a loss of nan") as caught:
        made.advance()
    assert caught.value.step == 2


def test_one_class_with_no_chance_at_all_has_a_gradient(image_task):
    """0 log 0 is 0, and so is its slope."""
    made = build("dafl", image_task(0), SETTINGS)
    logits = torch.full((4, 10), -1e4)
    logits[:, 0] = 0
    loss = made._loss(logits.requires_grad_(), torch.zeros(4, 64), None)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", BOTH)
def test_on_a_gpu(digits_bundle, method):
    bundle = Bundle.open(digits_bundle)
    task = make_task(bundle, Graph.from_bytes(bundle.graph_bytes(), "graph"), 0, "cuda")
    made = build(method, task, SETTINGS)
    assert math.isfinite(made.advance())
    assert all(tensor.device.type == "cuda" for tensor in made.sample(10))
