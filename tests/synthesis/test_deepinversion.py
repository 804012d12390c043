"""`deepinversion` and `deepinversion-adaptive`: images whose features have the training data's statistics."""

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
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build, deepinversion_adaptive, uses
from dfmeta.synthesis._feature_statistics import feature_statistics
from dfmeta.synthesis._inversion import jensen_shannon, total_variation

SETTINGS = {"images": "40", "batch": "40", "iterations": "60"}


def distance(task, inputs):
    statistics = feature_statistics(task)
    with torch.no_grad():
        values = task.values(inputs, list({entry.value for entry in statistics}))
        return float(torch.stack([entry.distance(values) for entry in statistics]).sum())


def with_records(task, keep):
    return dataclasses.replace(task, records=PublishedRecords(tuple(e for e in task.records if keep(e))))


def test_the_statistics_come_near(task):
    """Nearer than noise of the input's scale, with BatchNormalization and with moments."""
    given = task(0)
    made = build("deepinversion", given, SETTINGS)
    made.advance()
    noise = build("noise", given).sample(40)[0]
    assert distance(given, made._inputs) < 0.4 * distance(given, noise)


def test_the_teacher_sees_the_class_that_was_asked_for(image_task):
    task = image_task(0)
    made = build("deepinversion", task, SETTINGS)
    made.advance()
    assert float((task.logits(made._inputs).argmax(1) == made._labels).float().mean()) > 0.9
    assert made._labels.bincount(minlength=10).tolist() == [4] * 10


def test_batch_normalization_is_where_the_statistics_come_from(image_task, digits_network):
    """The network's own, of what each of its normalisations reads; records are not looked at."""
    task = with_records(image_task(0), lambda entry: False)
    found = feature_statistics(task)
    norms = [module for module in digits_network if isinstance(module, nn.BatchNorm2d)]
    for entry, norm in zip(found, norms, strict=True):
        torch.testing.assert_close(entry.mean, norm.running_mean)
        torch.testing.assert_close(entry.variance, norm.running_var)
    inputs = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        value = digits_network[0](inputs).double()
        rows = [value[:, channel].flatten().tolist() for channel in range(8)]
        means = [sum(row) / len(row) for row in rows]
        spreads = [sum((v - m) ** 2 for v in row) / len(row) for row, m in zip(rows, means, strict=True)]
        wanted = [
            math.sqrt(sum((a - float(b)) ** 2 for a, b in zip(ours, theirs, strict=True)))
            for ours, theirs in ((means, norms[0].running_mean), (spreads, norms[0].running_var))
        ]
        distance = float(found[0].distance(task.values(inputs, [found[0].value])))
    assert distance == pytest.approx(sum(wanted), rel=1e-4)


def test_without_batch_normalization_moments_take_its_place(vector_task, digits):
    """Those of all units where there are any: of the real data, the distance is zero."""
    task = with_records(vector_task(0), lambda entry: not entry.by_class)
    vectors = digits[0].flatten(1)
    assert len(feature_statistics(task)) == 3
    assert distance(task, vectors) < 1e-2 < 0.1 * distance(task, vectors + 0.3)


def test_moments_of_classes_are_pooled(vector_task, digits):
    """Each class with the same weight, as the batches have it; held against the data, class by class."""
    images, labels = digits
    task = with_records(vector_task(0), lambda entry: entry.by_class)
    (entry,) = [found for found in feature_statistics(task) if found.value == task.output_name]
    with torch.no_grad():
        logits = task.logits(images.flatten(1)).double()
    even = torch.cat([logits[labels == label].mean(0, keepdim=True) for label in range(10)]).mean(0)
    spread = torch.stack([(logits[labels == label] - even).square().mean(0) for label in range(10)]).mean(0)
    torch.testing.assert_close(entry.mean.double(), even, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entry.variance.double(), spread, rtol=1e-3, atol=1e-4)


def test_withheld_classes_have_no_weight(vector_task):
    task = with_records(vector_task(0), lambda entry: entry.by_class and entry.kind == "moments")
    kept, without = [], []
    for entry in task.records:
        tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
        for tensor in tensors.values():
            tensor[[2, 5]] = 0
        kept.append(dataclasses.replace(entry, tensors=tensors))
        rest = {name: tensor[[0, 1, 3, 4, 6, 7, 8, 9]] for name, tensor in entry.tensors.items()}
        without.append(dataclasses.replace(entry, tensors=rest))
    first, second = (
        feature_statistics(dataclasses.replace(task, records=PublishedRecords(tuple(entries))))
        for entries in (kept, without)
    )
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.variance, theirs.variance)


def test_all_units_go_before_classes_and_positions_before_channels(vector_task):
    task = vector_task(0)
    moments = [entry for entry in task.records if entry.kind == "moments"]
    both = {(entry.value, entry.by_class) for entry in moments}
    assert (task.output_name, True) in both
    assert (task.output_name, False) in both
    overall = task.records.of(task.output_name, "moments", by_class=False)
    other = dataclasses.replace(
        overall, features="channel", feature_axis=1, tensors={**overall.tensors, "mean": -overall.tensors["mean"]}
    )
    for entries in ([other, *moments], [*moments, other]):
        found = feature_statistics(dataclasses.replace(task, records=PublishedRecords(tuple(entries))))
        (entry,) = [entry for entry in found if entry.value == task.output_name]
        assert torch.equal(entry.mean, overall.tensors["mean"][0])


def test_neither_batch_normalization_nor_moments(vector_task):
    given = vector_task(0)
    withheld = [
        dataclasses.replace(e, tensors={n: torch.zeros_like(t) for n, t in e.tensors.items()}) for e in given.records
    ]
    for entries in ((), tuple(e for e in given.records if e.kind == "spectrum"), tuple(withheld)):
        bare = dataclasses.replace(given, records=PublishedRecords(entries))
        with pytest.raises(StepError, match=r"found no BatchNormalization and no 'moments'.*preset 'all-layers'"):
            build("deepinversion", bare)


def test_total_variation_is_the_plain_sum():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    wanted = 0.0
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = 0.0
        for image in images.flatten(0, 1):
            for row in range(4 - down):
                for column in range(max(0, -right), 5 - max(0, right)):
                    squares += float(image[row + down, column + right] - image[row, column]) ** 2
        wanted += math.sqrt(squares)
    assert float(total_variation(images)) == pytest.approx(wanted, rel=1e-9)


def test_the_loss_is_the_papers(image_task):
    """On a batch that stands still: cross-entropy, the distance, the variation and the norm, each with its weight."""
    task = image_task(0)
    made = build("deepinversion", task, {"match": "3", "variation": "0.01", "energy": "0.02"})
    mean, scale = task.input_scale()
    pixels = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs, labels = mean + scale * pixels, torch.arange(20) % 10
    with torch.no_grad():
        wanted = F.cross_entropy(task.logits(inputs), labels) + 3 * distance(task, inputs)
        wanted = wanted + 0.01 * total_variation(pixels) + 0.02 * pixels.square().sum().sqrt()
        assert float(made._loss(pixels, labels)) == pytest.approx(float(wanted), rel=1e-5)


def test_images_are_shifted_and_mirrored_and_vectors_are_not(image_task, vector_task):
    pixels = torch.arange(128.0).reshape(2, 1, 8, 8)
    made = build("deepinversion", image_task(0), {"jitter": "0.25", "flip": "0.5"})
    moved = [made._moved(pixels) for _ in range(200)]
    every = {
        tuple(view.flatten().tolist())
        for down in range(-2, 3)
        for right in range(-2, 3)
        for view in (torch.roll(pixels, (down, right), (2, 3)), torch.roll(pixels, (down, right), (2, 3)).flip(3))
    }
    seen = {tuple(view.flatten().tolist()) for view in moved}
    assert len(every) == 50
    assert seen <= every
    assert len(seen) > 40
    made = build("deepinversion", image_task(0), {"jitter": "0"})
    assert torch.equal(made._moved(pixels), pixels)
    vectors = torch.rand(2, 64)
    assert build("deepinversion", vector_task(0), {"jitter": "0.25"})._moved(vectors) is vectors


def test_batches_add_up_and_the_classes_go_on(image_task):
    made = build("deepinversion", image_task(0), {"images": "25", "batch": "13", "iterations": "1"})
    assert made.steps == 2
    made.advance()
    made.advance()
    assert made._labels.tolist() == [(1 + n) % 10 for n in range(25)]
    assert made._inputs.shape == (25, 1, 8, 8)
    inputs, labels = made.sample(100)
    rows = [int((made._inputs == image).flatten(1).all(1).nonzero()[0]) for image in inputs]
    assert torch.equal(labels, made._labels[rows])
    assert len(set(rows)) > 15


@pytest.mark.parametrize("setting", ["batch", "images"])
def test_a_batch_of_one(image_task, setting):
    with pytest.raises(DataError, match="deepinversion, batch and images: found 1, expected 2 or more"):
        build("deepinversion", image_task(0), {setting: "1"})


def test_a_loss_that_is_not_finite_names_the_step(vector_task):
    """Nothing bounds these inputs, so that a step too large leaves the range of numbers."""
    made = build("deepinversion", vector_task(0), SETTINGS | {"lr": "1e30"})
    with pytest.raises(Diverged, match=r"deepinversion, step 2: found a loss of (inf|nan)") as caught:
        made.advance()
    assert caught.value.step == 2


@pytest.fixture
def student():
    """A linear network, in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)).train()


def test_the_adaptive_form_finds_more_disagreement(image_task, student):
    given = dataclasses.replace(image_task(0), student=student)
    found = {}
    for weight in ("1e-9", "20"):
        made = build("deepinversion-adaptive", given, SETTINGS | {"competition": weight})
        made.advance()
        with torch.no_grad():
            inputs = made._inputs
            found[weight] = float(jensen_shannon(student.eval()(inputs), given.logits(inputs), 3.0))
        student.train()
    assert found["20"] > 1.2 * found["1e-9"]


def test_the_student_is_left_as_it_was(image_task, student):
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    given = dataclasses.replace(image_task(0), student=student)
    build("deepinversion-adaptive", given, SETTINGS | {"iterations": "2"}).advance()
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert all(module.training for module in student.modules())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_it_learns_in_turns_with_the_student(image_task, student):
    assert uses("deepinversion-adaptive") == {"student"}
    given = dataclasses.replace(image_task(0), student=student)
    assert build("deepinversion-adaptive", given, {"student_steps": "7"}).student_steps == 7
    assert not hasattr(build("deepinversion", given), "student_steps")


def test_without_a_student(image_task):
    with pytest.raises(MethodInput, match="'deepinversion-adaptive': found no student"):
        deepinversion_adaptive.build(image_task(0), deepinversion_adaptive.Config())


def test_the_divergence_is_the_plain_formula():
    """In float64, term by term; 0 for the same, log 2 for what has nothing in common."""
    generator = torch.Generator().manual_seed(0)
    first, second = (3 * torch.randn(6, 4, generator=generator).double() for _ in range(2))
    p, q = ((logits / 3).softmax(1).tolist() for logits in (first, second))
    wanted = 0.0
    for ours, theirs in zip(p, q, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            wanted += (a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b))) / 12
    assert float(jensen_shannon(first, second, 3.0)) == pytest.approx(wanted, rel=1e-9)
    assert float(jensen_shannon(first, first, 3.0)) == pytest.approx(0, abs=1e-12)
    apart = 1e3 * torch.eye(2)
    assert float(jensen_shannon(apart, apart.flip(0), 3.0)) == pytest.approx(math.log(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(digits_bundle, student):
    bundle = Bundle.open(digits_bundle)
    task = make_task(bundle, Graph.from_bytes(bundle.graph_bytes(), "graph"), 0, "cuda")
    task = dataclasses.replace(task, student=student.cuda())
    for method in ("deepinversion", "deepinversion-adaptive"):
        made = build(method, task, SETTINGS)
        assert math.isfinite(made.advance())
        assert all(tensor.device.type == "cuda" for tensor in made.sample(10))
