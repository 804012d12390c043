"""What `matched-subspace` promises beyond the contract."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dfmeta.errors import Diverged, StepError
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build
from dfmeta.synthesis._feature_statistics import LEAST_VARIANCE, FeatureStatistics, feature_statistics

ALWAYS = {"tolerance": "1e-9", "inputs": "128", "batch": "64", "iterations": "15"}
NEVER = {"tolerance": "1e9"}


def off(task, inputs):
    """How far the layers are off, as the method counts it."""
    known = [entry for entry in feature_statistics(task) if entry.value != task.input_name]
    with torch.no_grad():
        values = task.values(inputs, [entry.value for entry in known])
    return float(torch.stack([entry.relative_distance(values) for entry in known]).mean())


def right(task, inputs, labels):
    """Share of inputs of which the teacher names the class that they were made for."""
    with torch.no_grad():
        return float((task.logits(inputs).argmax(1) == labels).float().mean())


def test_the_distance_is_that_of_a_plain_reference():
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(9, 3, 4, 4, generator=generator) * torch.tensor([1.0, 2.0, 0.0])[:, None, None] + 3
    mean, variance = torch.tensor([2.5, 3.0, 3.0]), torch.tensor([1.5, 2.0, 0.0])
    known = FeatureStatistics("v", "channel", 1, mean, variance)
    total = 0.0
    for channel in range(3):
        rows = value[:, channel].double().numpy().ravel()
        unit = float(variance[channel]) + LEAST_VARIANCE * float(variance.double().mean())
        total += (rows.mean() - float(mean[channel])) ** 2 / unit
        total += (np.sqrt(rows.var() + 1e-6 * unit) - np.sqrt(float(variance[channel]))) ** 2 / unit
    assert float(known.relative_distance({"v": value})) == pytest.approx(total / 3, rel=1e-5)


def test_a_constant_value_has_a_gradient():
    value = torch.zeros(5, 2, requires_grad=True)
    known = FeatureStatistics("v", "flattened", 1, torch.ones(2), torch.ones(2))
    known.relative_distance({"v": value}).backward()
    assert bool(torch.isfinite(value.grad).all())


def test_refining_brings_the_layers_nearer_and_the_teacher_to_the_class(image_task):
    task = image_task(0)
    start, labels = build("class-subspace", task, {}).sample(128)
    made = build("matched-subspace", task, ALWAYS)
    assert made.steps == 2
    for _ in range(made.steps):
        made.advance()
    inputs, of_inputs = made.sample(500)
    assert off(task, inputs) < 0.8 * off(task, start)
    assert right(task, inputs, of_inputs) >= right(task, start, labels)
    assert bool(((inputs >= task.low) & (inputs <= task.high)).all())


def test_a_start_that_is_good_enough_is_left_alone(image_task):
    made = build("matched-subspace", image_task(0), NEVER)
    assert made.steps == 0
    inputs, labels = made.sample(64)
    plain, of_plain = build("class-subspace", image_task(0), {}).sample(64 + 256)
    assert len(torch.unique(inputs.flatten(1), dim=0)) == 64
    # The batch that was looked at first took the first draws.
    assert inputs.shape[1:] == plain.shape[1:]
    assert set(labels.tolist()) <= set(of_plain.tolist())


def test_refinement_ends_at_the_tolerance(image_task):
    task = image_task(0)
    begun = off(task, build("class-subspace", task, {}).sample(64)[0])
    settings = {**ALWAYS, "tolerance": str(0.9 * begun), "inputs": "64", "iterations": "100"}
    made = build("matched-subspace", task, settings)
    left = made.advance()
    assert 0.3 * begun < left <= 0.9 * begun


def test_the_records_are_matched_where_nothing_is_normalised(vector_task):
    task = vector_task(0)
    start, _ = build("class-subspace", task, {}).sample(128)
    made = build("matched-subspace", task, ALWAYS)
    for _ in range(made.steps):
        made.advance()
    assert off(task, made.sample(128)[0]) < off(task, start)


def test_without_any_layer_to_match_it_is_class_subspace(vector_task):
    task = vector_task(0)
    only = tuple(entry for entry in task.records if entry.kind == "spectrum")
    made = build("matched-subspace", dataclasses.replace(task, records=PublishedRecords(only)), ALWAYS)
    assert made.steps == 0


def test_without_a_spectrum_of_the_input(image_task):
    task = image_task(0)
    left = tuple(entry for entry in task.records if entry.kind != "spectrum")
    with pytest.raises(StepError, match=r"no 'spectrum' of each class.*preset 'spectral'"):
        build("matched-subspace", dataclasses.replace(task, records=PublishedRecords(left)), {})


def test_a_loss_that_is_not_finite_says_at_which_step(image_task):
    made = build("matched-subspace", image_task(0), {**ALWAYS, "lr": "1e30", "match": "1e38"})
    with pytest.raises((Diverged, StepError), match="matched-subspace, step"):
        made.advance()
