"""What each method promises beyond the contract."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dfmeta.graph import TorchGraph
from dfmeta.synthesis import build

DRAWS = 20_000


@pytest.fixture(scope="module")
def logits(digits, digits_teacher):
    """The teacher's own, and the labels."""
    with torch.no_grad():
        return TorchGraph(digits_teacher)(digits[0]).double(), digits[1]


@pytest.mark.parametrize("label", [0, 3, 8])
def test_lopes_draws_its_targets_from_the_class_gaussian(image_task, logits, label):
    """From the covariance itself: 20,000 draws estimate it to 1 % of its scale, its square is far away."""
    task = image_task(0)
    (target,) = build("lopes:top-layer", task)._targets
    drawn = target.draw(task, torch.full((DRAWS,), label)).double()
    real = logits[0][logits[1] == label]
    wanted = torch.cov(real.T, correction=0)
    found = torch.cov(drawn.T, correction=0)
    scale = float(wanted.diagonal().max())
    error = float((found - wanted).abs().max()) / scale
    assert error < 0.05
    assert float((wanted @ wanted - wanted).abs().max()) / scale > 0.5
    torch.testing.assert_close(drawn.mean(0), real.mean(0), atol=0.05 * scale**0.5, rtol=0)


def test_lopes_draws_deviations_alone_where_no_spectrum_was_recorded(image_task, logits):
    task = image_task(0)
    moments = tuple(entry for entry in task.records if entry.kind == "moments")
    bare = dataclasses.replace(task, records=dataclasses.replace(task.records, statistics=moments))
    (target,) = build("lopes:top-layer", bare)._targets
    found = torch.cov(target.draw(bare, torch.full((DRAWS,), 3)).double().T, correction=0)
    variance = logits[0][logits[1] == 3].var(0, unbiased=False)
    torch.testing.assert_close(found.diagonal(), variance, rtol=0.05, atol=0)
    assert float((found - found.diagonal().diag()).abs().max()) < 0.05 * float(variance.max())


def test_lopes_keeps_the_whole_variance_where_the_spectrum_is_cut(image_task):
    """Hidden sites keep a few of hundreds of directions; what is left over is spread over all of them."""
    task = image_task(0)
    targets = build("lopes:all-layers", task)._targets
    assert {target.statistic.value for target in targets} == {"conv2d", "conv2d_1", "logits"}
    for target in targets:
        drawn = target.draw(task, torch.full((2000,), 4)).double()
        total = target.variance[4].double().sum()
        assert float(drawn.var(0).sum()) == pytest.approx(float(total), rel=0.05)


def test_lopes_reaches_its_targets(image_task):
    """More descent leaves less error, and the teacher sees the class that was asked for."""
    losses = {}
    for iterations in ("2", "60"):
        settings = {"images": "60", "batch": "60", "iterations": iterations}
        task = image_task(0)
        made = build("lopes:top-layer", task, settings)
        losses[iterations] = made.advance()
    assert losses["60"] < 0.3 * losses["2"]
    inputs, labels = made.sample(200)
    with torch.no_grad():
        assert (task.teacher(inputs).argmax(1) == labels).float().mean() > 0.9


def distance(task, inputs, labels):
    """Mean distance from all records of each class."""
    entries = [entry for entry in task.records if entry.by_class]
    with torch.no_grad():
        values = task.values(inputs, list({entry.value: None for entry in entries}))
        found = [entry.distance(values, labels) for entry in entries]
    return float(torch.stack(found).mean())


def test_the_matched_generator_comes_nearer_than_noise(image_task):
    """Noise with the same labels is the baseline; the real digits are at 0."""
    task = image_task(0)
    made = build("matched-generator", task, {"iterations": "80", "batch": "160", "pool": "1000"})
    for _ in range(made.steps):
        made.advance()
    inputs, labels = made.sample(600)
    noise = build("noise", task).sample(600)[0]
    assert distance(task, inputs, labels) < 0.02 * distance(task, noise, labels)
    assert {int(label) for label in labels} == set(range(10))
    with torch.no_grad():
        assert (task.teacher(inputs).argmax(1) == labels).float().mean() > 0.8
