"""What every synthesis method must do, over whatever the catalogue lists."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from dfmeta._catalog import SYNTHESIS
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build, names

ALL = names()
WITH_SETTINGS = tuple(name for name in ALL if dataclasses.fields(SYNTHESIS.load(name.partition(":")[0]).Config))


def small(method):
    """The method's own settings, with no count above 24: quick, whatever its fields are called."""
    config = SYNTHESIS.load(method.partition(":")[0]).Config()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: str(min(value, 24)) for name, value in values.items() if isinstance(value, int)}


def run(method, task, count=17):
    made = build(method, task, small(method))
    losses = [made.advance() for _ in range(made.steps)]
    return losses, *made.sample(count)


def test_the_methods():
    assert {"noise", "lopes:top-layer", "lopes:all-layers", "matched-generator"} <= set(ALL)


@pytest.mark.parametrize("method", ALL)
def test_samples_are_inputs_of_the_model(method, task):
    given = task(0)
    losses, inputs, labels = run(method, given)
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
def test_the_seed_decides_everything(method, image_task):
    state = torch.get_rng_state()
    first, again, other = (run(method, image_task(seed)) for seed in (3, 3, 4))
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[2], again[2])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("method", ALL)
def test_many_samples_and_few(method, image_task):
    made = build(method, image_task(0), small(method))
    for _ in range(made.steps):
        made.advance()
    for count in (1, 100):
        inputs, labels = made.sample(count)
        assert len(inputs) == len(labels) == count
    assert not torch.equal(made.sample(100)[0], inputs)


@pytest.mark.parametrize("method", ALL)
def test_the_teacher_is_left_as_it_was(method, image_task):
    given = image_task(0)
    before = {name: tensor.clone() for name, tensor in given.teacher.state_dict().items()}
    run(method, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.teacher.state_dict().items())
    assert not given.teacher.training


@pytest.mark.parametrize("method", [name for name in ALL if name != "noise"])
def test_without_records_there_is_nothing_to_go_by(method, image_task):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    with pytest.raises(StepError):
        build(method, bare, small(method))


def test_a_missing_record_names_the_preset(image_task):
    bare = dataclasses.replace(image_task(0), records=PublishedRecords(()))
    with pytest.raises(StepError, match="'top-layer'"):
        build("lopes:top-layer", bare)


def test_noise_needs_no_records(task):
    bare = dataclasses.replace(task(0), records=PublishedRecords(()))
    _, inputs, labels = run("noise", bare, 2000)
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
def test_settings_that_are_no_settings(method, image_task):
    given = image_task(0)
    field = dataclasses.fields(SYNTHESIS.load(method.partition(":")[0]).Config)[0].name
    with pytest.raises(UnknownName, match=f"Did you mean '{field}'"):
        build(method, given, {field + "x": "1"})
    for text in ("many", "", "1e999999x", "-3", "0"):
        with pytest.raises(DataError, match=f"{method}, {field}"):
            build(method, given, {field: text})


@pytest.mark.parametrize("text", ["0", "-0.1", "1,5", "nan", "inf"])
@pytest.mark.parametrize("method", WITH_SETTINGS)
def test_numbers_that_no_method_can_use(method, image_task, text):
    with pytest.raises(DataError, match=f"{method}, lr"):
        build(method, image_task(0), {"lr": text})


@pytest.mark.parametrize(
    ("text", "valid"), [("0", True), ("1", True), ("1.01", False), ("-0.1", False), ("nan", False)]
)
def test_a_share_lies_between_0_and_1(image_task, text, valid):
    given = image_task(0)
    if valid:
        build("matched-generator", given, {"start": text, "past": text})
        return
    for setting in ("start", "past"):
        with pytest.raises(DataError, match="a share from 0 to 1"):
            build("matched-generator", given, {setting: text})


@pytest.mark.parametrize("method", ALL)
def test_withheld_classes_do_not_break_a_method(method, image_task):
    """A class too small to publish has rows of zeros, which say nothing of it."""
    given = image_task(0)
    kept = []
    for entry in given.records:
        tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
        for tensor in tensors.values() if entry.by_class else ():
            tensor[[2, 5]] = 0
        kept.append(dataclasses.replace(entry, tensors=tensors))
    losses, inputs, _ = run(method, dataclasses.replace(given, records=PublishedRecords(tuple(kept))))
    assert all(loss < 1e4 for loss in losses)
    assert torch.isfinite(inputs).all()
