"""KegNet's networks, its losses, and what its generators learn."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfmeta._settings import from_text
from dfmeta.compress.distill import Config as Training
from dfmeta.errors import DataError, Diverged, StepError
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build, training
from dfmeta.synthesis._kegnet_networks import decoder_network, generator_network
from dfmeta.synthesis.kegnet import Config, KegNet, diversity

SHORT = {"generators": "2", "iterations": "60", "batch": "48", "lr": "5e-3"}


def begin(task, settings=None):
    return build("kegnet", task, {**SHORT, **(settings or {})})


def learnt(task, settings=None):
    made = begin(task, settings)
    losses = [made.advance() for _ in range(made.steps)]
    return made, losses


def agreement(task, inputs, labels):
    with torch.no_grad():
        return float((task.logits(inputs).argmax(1) == labels).float().mean())


def test_the_defaults_are_those_of_the_mnist_experiment():
    config = Config()
    assert (config.generators, config.iterations, config.batch) == (5, 200 * 100, 256)
    assert (config.alpha, config.beta, config.lr, config.latent, config.layers) == (1, 0, 1e-3, 10, 1)
    student = Training(**training("kegnet"))
    assert (student.steps, student.batch, student.lr) == (400 * 5 * 100, 64, 1e-5)
    assert (student.loss, student.temperature, student.schedule, student.shift) == ("kl", 1.0, "constant", 0.0)


@pytest.mark.parametrize(
    "shape", [(1, 32, 32), (1, 28, 28), (3, 8, 8), (1, 5, 9), (2, 1, 1), (64,), (3, 7), (1,), (4, 3, 3, 3)]
)
def test_networks_fit_inputs_of_any_shape(shape):
    generator = torch.Generator().manual_seed(0)
    network = generator_network(shape, 4, 6, generator)
    inputs = network(torch.randn(8, 6, generator=generator), torch.arange(8) % 4)
    assert inputs.shape == (8, *shape)
    assert decoder_network(shape, 6, 12, 2, generator)(inputs).shape == (8, 6)


def test_the_generator_for_32_by_32_is_the_paper_s():
    """Dense 256 and 128, then four 4x4 deconvolutions of 64, 16, 4 and c maps."""
    network = generator_network((3, 32, 32), 10, 10, torch.Generator().manual_seed(0))
    dense = [module.out_features for module in network.modules() if isinstance(module, nn.Linear)]
    maps = [m for m in network.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert dense == [256, 128]
    assert [module.out_channels for module in maps] == [64, 16, 4, 3]
    assert {module.kernel_size for module in maps} == {(4, 4)}


def test_each_image_is_standardised():
    generator = torch.Generator().manual_seed(0)
    network = generator_network((2, 16, 12), 4, 6, generator)
    with torch.no_grad():
        flat = network(torch.randn(50, 6, generator=generator), torch.arange(50) % 4).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(1, unbiased=False), torch.ones(50), atol=1e-2, rtol=0)


def test_initial_weights_are_of_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (generator_network((1, 8, 8), 3, 5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    pairs = zip(first.state_dict().items(), again.state_dict().values(), other.state_dict().values(), strict=True)
    for (_, one), same, different in pairs:
        assert torch.equal(one, same)
        assert one.dim() < 2 or not torch.equal(one, different)


def test_the_diversity_term_beside_plain_loops():
    generator = torch.Generator().manual_seed(0)
    noise, inputs = torch.randn(6, 3, generator=generator), torch.randn(6, 2, 4, 4, generator=generator)
    total = 0.0
    for i in range(6):
        for j in range(6):
            apart = float(((noise[i] - noise[j]).double() ** 2).mean())
            total += apart * float((inputs[i] - inputs[j]).double().abs().mean())
    assert float(diversity(noise, inputs)) == pytest.approx(math.exp(-total / 36), rel=1e-5)


def test_the_loss_beside_its_three_terms(image_task):
    task = image_task(0)
    made = begin(task, {"alpha": "3", "beta": "2"})
    made.advance()
    noise, labels = made._draw(16)
    inputs = made._inputs(made._generators[-1](noise, labels))
    centre, deviation = task.input_scale()
    with torch.no_grad():
        found = float(made._loss(inputs, noise, labels))
        classified = F.cross_entropy(task.teacher(inputs), labels)
        read = made._decoder((inputs - centre) / deviation)
        expected = classified + 3 * (read - noise).square().mean() + 2 * diversity(noise, inputs)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_the_gradient_passes_the_edge_of_the_range(image_task):
    task = image_task(0)
    standard = torch.full((1, *task.item_shape), -50.0, requires_grad=True)
    inputs = begin(task)._inputs(standard)
    assert (inputs == task.low).all()
    inputs.sum().backward()
    assert float(standard.grad.min()) > 0


def test_the_teacher_sees_the_classes_that_were_asked_for(image_task):
    task = image_task(0)
    made, losses = learnt(task)
    assert sum(losses[50:60]) < 0.5 * sum(losses[:10])
    # The second generator starts afresh.
    assert losses[60] > 2 * losses[59]
    inputs, labels = made.sample(500)
    assert agreement(task, inputs, labels) > 0.9
    assert {int(label) for label in labels} == set(range(10))


def test_the_decoder_reads_the_noise_of_a_vector(vector_task):
    task = vector_task(0)
    made, _ = learnt(task, {"iterations": "150", "generators": "1"})
    inputs, labels = made.sample(500)
    assert agreement(task, inputs, labels) > 0.8
    noise, labels = made._draw(500)
    with torch.no_grad():
        standard = made._generators[0](noise, labels)
        error = F.mse_loss(made._decoder.eval()(standard), noise)
    # 1 is what guessing the mean leaves.
    assert float(error) < 0.6


def test_samples_are_of_all_generators(image_task):
    task = image_task(0)
    made, _ = learnt(task, {"iterations": "2", "generators": "3"})
    assert len(made._generators) == 3
    asked = [0, 0, 0]
    for index, network in enumerate(made._generators):
        network.register_forward_pre_hook(lambda _, given, index=index: asked.__setitem__(index, len(given[0])))
    made.sample(300)
    assert sum(asked) == 300
    assert min(asked) > 60


def test_an_input_does_not_depend_on_those_drawn_with_it(image_task):
    """BatchNorm uses its running statistics and keeps them."""
    made, _ = learnt(image_task(0), {"iterations": "3", "generators": "1"})
    before = {name: tensor.clone() for name, tensor in made._generators[0].state_dict().items()}
    made.sample(40)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made._generators[0].state_dict().items())


def test_no_records_are_needed(image_task):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    made, _ = learnt(bare, {"iterations": "2"})
    inputs, _ = made.sample(3)
    assert inputs.shape == (3, 1, 8, 8)


def test_a_loss_that_is_not_finite_names_the_step(image_task):
    made = begin(image_task(0))
    made.advance()
    with torch.no_grad():
        next(made._decoder.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="kegnet, step 2: found a loss of nan") as caught:
        made.advance()
    assert caught.value.step == 2


@pytest.mark.parametrize("settings", [{"generators": "0"}, {"alpha": "-1"}, {"beta": "nan"}, {"batch": "2.5"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(DataError, match="kegnet"):
        from_text(Config(), settings, "kegnet")


def test_nothing_can_be_drawn_before_there_is_a_generator(image_task):
    with pytest.raises(StepError, match="no generator"):
        KegNet(image_task(0), Config()).sample(1)
