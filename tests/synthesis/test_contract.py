"""What every synthesis method must do, over whatever the catalogue lists."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from dfmeta._catalog import SYNTHESIS
from dfmeta.compress import distill
from dfmeta.errors import DataError, MethodInput, StepError, UnknownName
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build, names, training, uses

ALL = names()


def config_of(method):
    return SYNTHESIS.load(method.partition(":")[0]).Config


WITH_SETTINGS = tuple(name for name in ALL if dataclasses.fields(config_of(name)))


def small(method):
    """The method's own settings, with no count above 24: quick, whatever its fields are called."""
    config = config_of(method)()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: str(min(value, 24)) for name, value in values.items() if isinstance(value, int)}


@pytest.fixture
def begun(digits):
    """Method and task to a run of it, given what it asks for beside the task: a student, data."""
    images, labels = digits

    def begin(method, task, settings=None):
        shaped = images.reshape(len(images), *task.item_shape)

        def draw(count):
            rows = task.integers(len(shaped), count)
            return shaped[rows], labels[rows]

        given = {"student": other_network(task), "data": draw}
        task = dataclasses.replace(task, **{need: given[need] for need in uses(method)})
        return build(method, task, small(method) if settings is None else settings)

    return begin


def other_network(task):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(task.item_shape), task.classes)).eval()


def run(begun, method, task, count=17):
    made = begun(method, task)
    losses = [made.advance() for _ in range(made.steps)]
    return losses, *made.sample(count)


def test_the_methods():
    assert {"noise", "lopes:top-layer", "lopes:all-layers", "matched-generator"} <= set(ALL)


@pytest.mark.parametrize("method", ALL)
def test_samples_are_inputs_of_the_model(method, task, begun):
    given = task(0)
    losses, inputs, labels = run(begun, method, given)
    assert all(isinstance(loss, float) and math.isfinite(loss) for loss in losses)
    assert inputs.shape == (17, *given.item_shape)
    assert inputs.dtype == torch.float32
    assert not inputs.requires_grad
    assert torch.isfinite(inputs).all()
    assert (inputs >= given.low).all()
    assert (inputs <= given.high).all()
    assert inputs.flatten(1).std(0).max() > 0
    assert labels.shape == (17,)
    assert labels.dtype == torch.int64
    assert 0 <= labels.min() <= labels.max() < given.classes


@pytest.mark.parametrize("method", ALL)
def test_the_seed_decides_everything(method, image_task, begun):
    state = torch.get_rng_state()
    first, again, other = (run(begun, method, image_task(seed)) for seed in (3, 3, 4))
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[2], again[2])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("method", ALL)
def test_many_samples_and_few(method, image_task, begun):
    made = begun(method, image_task(0))
    for _ in range(made.steps):
        made.advance()
    for count in (1, 100):
        inputs, labels = made.sample(count)
        assert len(inputs) == len(labels) == count
    assert not torch.equal(made.sample(100)[0], inputs)


@pytest.mark.parametrize("method", ALL)
def test_it_may_be_stopped_after_any_step(method, image_task, begun):
    made = begun(method, image_task(0))
    for _ in range(min(1, made.steps)):
        made.advance()
    inputs, labels = made.sample(20)
    assert len(inputs) == len(labels) == 20
    assert torch.isfinite(inputs).all()


@pytest.mark.parametrize("method", ALL)
def test_the_teacher_is_left_as_it_was(method, image_task, begun):
    given = image_task(0)
    before = {name: tensor.clone() for name, tensor in given.teacher.state_dict().items()}
    run(begun, method, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.teacher.state_dict().items())
    assert not given.teacher.training


PRESETS = ("top-layer", "all-layers", "spectral", "spectral-pairs", "calibration")


@pytest.mark.parametrize("method", ALL)
def test_without_records_a_method_works_or_names_the_preset(method, image_task, begun):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    said = None
    try:
        _, inputs, _ = run(begun, method, bare)
    except StepError as error:
        said = str(error)
    assert torch.isfinite(inputs).all() if said is None else any(f"{preset!r}" in said for preset in PRESETS)


@pytest.mark.parametrize("method", [name for name in ALL if uses(name)])
def test_what_a_method_needs_must_be_given(method, image_task):
    with pytest.raises(MethodInput, match=r"--(data|student)") as caught:
        build(method, image_task(0), small(method))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("method", ALL)
def test_the_training_of_a_method_is_one_that_there_is(method):
    assert dataclasses.replace(distill.Config(), **training(method)).steps > 0


def test_a_missing_record_names_the_preset(image_task):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    with pytest.raises(StepError, match="'top-layer'"):
        build("lopes:top-layer", bare)


def test_noise_needs_no_records(task, begun):
    bare = dataclasses.replace(task(0), records=PublishedRecords(()))
    _, inputs, labels = run(begun, "noise", bare, 2000)
    centre, deviation = bare.input_scale()
    assert float(inputs.mean()) == pytest.approx(float(centre.mean()), abs=0.02)
    # Clipping to the range takes a little off the tails.
    assert float(inputs.std()) == pytest.approx(float(deviation.mean()), rel=0.15)
    assert torch.equal(labels, bare.teacher(inputs).argmax(1))


def test_noise_takes_its_scale_from_the_records(image_task, digits):
    centre, deviation = image_task(0).input_scale()
    assert float(centre) == pytest.approx(float(digits[0].mean()), rel=1e-4)
    assert float(deviation) == pytest.approx(float(digits[0].std()), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "near"), [("noize", "'noise'"), ("lopes:toplayer", "'lopes:top-layer'"), ("lopes", ""), ("noise:x", "")]
)
def test_an_unknown_method(image_task, name, near):
    with pytest.raises(UnknownName, match=f"synthesis method.*{near}"):
        build(name, image_task(0))


@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_settings_that_are_no_settings(method, image_task, begun):
    given = image_task(0)
    field = next(entry for entry in dataclasses.fields(config_of(method)) if not entry.metadata).name
    with pytest.raises(UnknownName, match=f"Did you mean '{field}'"):
        begun(method, given, {field + "x": "1"})
    for text in ("many", "", "1e999999x", "-3", "0"):
        with pytest.raises(DataError, match=f"{method}, {field}"):
            begun(method, given, {field: text})


@pytest.mark.parametrize("text", ["0", "-0.1", "1,5", "nan", "inf"])
@pytest.mark.parametrize("method", [name for name in WITH_SETTINGS if hasattr(config_of(name), "lr")])
def test_numbers_that_no_method_can_use(method, image_task, text, begun):
    with pytest.raises(DataError, match=f"{method}, lr"):
        begun(method, image_task(0), {"lr": text})


@pytest.mark.parametrize(
    ("text", "valid"), [("0", True), ("1", True), ("1.01", False), ("-0.1", False), ("nan", False)]
)
def test_a_share_lies_between_0_and_1(image_task, text, valid):
    given = image_task(0)
    if valid:
        build("matched-generator", given, {"start": text, "past": text})
        return
    for setting in ("start", "past"):
        with pytest.raises(DataError, match="a share of 0 or more and up to 1"):
            build("matched-generator", given, {setting: text})


@pytest.mark.parametrize("method", ALL)
def test_withheld_classes_do_not_break_a_method(method, image_task, begun):
    """A class too small to publish has rows of zeros, which say nothing of it."""
    given = image_task(0)
    kept = []
    for entry in given.records:
        tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
        for tensor in tensors.values() if entry.by_class else ():
            tensor[[2, 5]] = 0
        kept.append(dataclasses.replace(entry, tensors=tensors))
    losses, inputs, _ = run(begun, method, dataclasses.replace(given, records=PublishedRecords(tuple(kept))))
    assert all(loss < 1e4 for loss in losses)
    assert torch.isfinite(inputs).all()
