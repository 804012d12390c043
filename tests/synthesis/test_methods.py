"""What each method promises beyond the contract."""

from __future__ import annotations

import torch

from dfmeta.synthesis import build


def distance(task, inputs, labels):
    """Mean distance from all records of each class."""
    entries = [entry for entry in task.records if entry.by_class]
    with torch.no_grad():
        values = task.values(inputs, list({name: None for entry in entries for name in entry.values}))
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
