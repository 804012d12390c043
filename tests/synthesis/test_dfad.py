"""`dfad`: the generator raises the disagreement, and the student is left as it was."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfmeta.bundle import Bundle
from dfmeta.errors import DataError, Diverged, MethodInput, StepError
from dfmeta.graph import Graph
from dfmeta.pipeline import make_task
from dfmeta.synthesis import build, dfad, training, uses
from dfmeta.synthesis._student_view import student_logits

SETTINGS = {"batch": "64", "width": "24", "iterations": "40", "lr": "0.01"}


def network(*layers):
    """Layers with weights that are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), *(layer() for layer in layers))


@pytest.fixture
def student():
    """In training, with everything that a look could disturb."""
    parts = (lambda: nn.Linear(64, 32), lambda: nn.BatchNorm1d(32), nn.ReLU, nn.Dropout, lambda: nn.Linear(32, 10))
    return network(*parts).train()


def with_student(task, student):
    return dataclasses.replace(task, student=student)


def disagreement(task, student, inputs):
    with torch.no_grad():
        theirs = task.logits(inputs)
        return float(F.l1_loss(student_logits(student, inputs, theirs.shape, by_batch=True), theirs))


def test_the_generator_raises_the_disagreement(task, student):
    given = with_student(task(0), student)
    made = build("dfad", given, SETTINGS)
    before = disagreement(given, student, made.sample(400)[0])
    losses = [made.advance() for _ in range(made.steps)]
    after = disagreement(given, student, made.sample(400)[0])
    assert after > 1.3 * before
    assert -losses[-1] == pytest.approx(after, rel=0.2)


def test_the_label_is_what_the_teacher_sees(image_task, student):
    given = with_student(image_task(0), student)
    inputs, labels = build("dfad", given, SETTINGS).sample(50)
    assert torch.equal(labels, given.logits(inputs).argmax(1))


def test_the_student_is_left_as_it_was(image_task, student):
    student[4].eval()
    modes = [module.training for module in student.modules()]
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    state = torch.get_rng_state()
    made = build("dfad", with_student(image_task(0), student), SETTINGS)
    made.advance()
    made.advance()
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in student.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_look_normalises_by_the_batch_only_where_the_student_does(student):
    inputs = 3 + torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = student[1](inputs)
        hidden = student[2].eval()(first), F.batch_norm(first, None, None, training=True)
        stored, batch = (student[-1](value.relu()) for value in hidden)
    shape = torch.Size((32, 10))
    for training_mode, by_batch, wanted in ((True, True, batch), (True, False, stored), (False, True, stored)):
        student.train(training_mode)
        torch.testing.assert_close(student_logits(student, inputs, shape, by_batch=by_batch), wanted)


def test_a_look_is_differentiable_by_the_inputs_alone(student):
    inputs = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    student_logits(student, inputs, torch.Size((8, 10))).sum().backward()
    assert float(inputs.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in student.parameters())


def test_modes_are_put_back_after_an_error(student):
    with pytest.raises(StepError):
        student_logits(student, torch.zeros(2, 63), torch.Size((2, 10)))
    assert all(module.training for module in student.modules())


def test_it_learns_beside_the_student():
    assert uses("dfad") == {"student"}
    assert dict(training("dfad"))["loss"] == "l1"


def test_it_takes_one_step_for_five_of_the_student(image_task, student):
    assert build("dfad", with_student(image_task(0), student), SETTINGS).student_steps == 5


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: nn.Linear(63, 10), r"found no way to take inputs \[1, 8, 8\]"),
        (lambda: nn.Linear(64, 9), r"found outputs \[64, 9\], expected the teacher's \[64, 10\]"),
    ],
)
def test_a_student_that_does_not_fit(image_task, layer, text):
    made = build("dfad", with_student(image_task(0), network(layer)), SETTINGS)
    with pytest.raises(StepError, match=text):
        made.advance()


def test_no_student(image_task):
    with pytest.raises(MethodInput, match="'dfad': found no student"):
        dfad.build(image_task(0), dfad.Config())


def test_a_batch_of_one(image_task, student):
    with pytest.raises(DataError, match="dfad, batch: found 1, expected 2 or more"):
        build("dfad", with_student(image_task(0), student), {"batch": "1"})


def test_a_loss_that_is_not_finite_names_the_step(image_task):
    broken = network(lambda: nn.Linear(64, 10))
    made = build("dfad", with_student(image_task(0), broken), SETTINGS)
    made.advance()
    with torch.no_grad():
        broken[1].bias.fill_(math.nan)
    with pytest.raises(Diverged, match="dfad, step 2: found a loss of nan") as caught:
        made.advance()
    assert caught.value.step == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(digits_bundle):
    bundle = Bundle.open(digits_bundle)
    task = make_task(bundle, Graph.from_bytes(bundle.graph_bytes(), "graph"), 0, "cuda")
    made = build("dfad", with_student(task, network(lambda: nn.Linear(64, 10)).cuda()), SETTINGS)
    assert math.isfinite(made.advance())
    assert all(tensor.device.type == "cuda" for tensor in made.sample(10))
