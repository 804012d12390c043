"""What a narrower copy of the teacher is told of the teacher's layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfmeta import students
from dfmeta.compress.distill import Config, distill
from dfmeta.compress.hints import Hints
from dfmeta.graph import TorchGraph
from dfmeta.graph.narrow import kept_places
from dfmeta.records import PublishedRecords
from dfmeta.students import Origin

NONE = PublishedRecords(())


@pytest.fixture
def pair(digits_teacher):
    """The teacher and a copy at half its width."""
    teacher = TorchGraph(digits_teacher).eval()
    origin = Origin(digits_teacher, NONE)
    return teacher, students.build("scaled:0.5", (1, 8, 8), 10, 0, origin)


def hints_of(teacher, student):
    graph = teacher.graph
    return Hints.between(teacher, student, graph.inputs[0].name, graph.outputs[0].name)


def test_each_channel_is_compared_with_the_one_it_was(pair, digits):
    teacher, student = pair
    hints = hints_of(teacher, student)
    assert hints is not None
    inputs = digits[0][:32]
    logits, theirs = hints.of_teacher(inputs)
    torch.testing.assert_close(logits, teacher(inputs))
    student.requires_grad_(False).eval()
    ours_logits, ours = hints.of_student(inputs)
    torch.testing.assert_close(ours_logits, student(inputs))
    values = teacher.run({hints.input_name: inputs}, list(hints.channels))
    expected = []
    for (name, places), mine, wanted in zip(hints.channels.items(), ours, theirs, strict=True):
        assert len(places) == mine.shape[1] < values[name].shape[1]
        for place, channel in enumerate(places.tolist()):
            assert torch.equal(wanted[:, place], values[name][:, channel])
        difference, scale = (mine - wanted).double(), wanted.double()
        expected.append(float((difference**2).mean() / ((scale - scale.mean()) ** 2).sum() * (scale.numel() - 1)))
    assert float(hints.distance(ours, theirs)) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_teacher_itself_lacks_nothing(digits_teacher, digits):
    teacher = TorchGraph(digits_teacher).eval()
    copy = students.build("scaled:1", (1, 8, 8), 10, 0, Origin(digits_teacher, NONE)).eval()
    hints = hints_of(teacher, copy)
    assert hints is not None
    inputs = digits[0][:16]
    with torch.no_grad():
        assert float(hints.distance(hints.of_student(inputs)[1], hints.of_teacher(inputs)[1])) < 1e-9


def test_the_first_layer_of_a_copy_computes_some_of_the_teachers_channels(pair, digits):
    teacher, student = pair
    hints = hints_of(teacher, student)
    assert hints is not None
    student.eval()
    first = next(iter(hints.channels))
    ours, theirs = hints.of_student(digits[0][:8])[1][0], hints.of_teacher(digits[0][:8])[1][0]
    assert first in hints.channels
    # Its own weights are the teacher's: nothing before it was cut.
    torch.testing.assert_close(ours, theirs)


def test_other_students_are_told_nothing(digits_teacher):
    teacher = TorchGraph(digits_teacher).eval()
    assert hints_of(teacher, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))) is None
    assert hints_of(teacher, TorchGraph(digits_teacher, trainable=True)) is None


def test_training_brings_the_layers_nearer(pair, digits):
    teacher, student = pair
    hints = hints_of(teacher, student)
    assert hints is not None
    inputs = digits[0][:256]
    student.eval()
    with torch.no_grad():
        before = float(hints.distance(hints.of_student(inputs)[1], hints.of_teacher(inputs)[1]))
    generator = torch.Generator().manual_seed(0)

    def source(count):
        return inputs[torch.randint(len(inputs), (count,), generator=generator)]

    config = Config(steps=60, batch=64, shift=0, hints=5.0)
    distill(student, teacher, source, config, generator, hints=hints)
    with torch.no_grad():
        after = float(hints.distance(hints.of_student(inputs)[1], hints.of_teacher(inputs)[1]))
    assert after < 0.5 * before


def test_places_without_a_cut_are_all_of_them(digits_teacher):
    places = kept_places(digits_teacher, {})
    for name, found in places.items():
        assert found.tolist() == list(range(int(digits_teacher.value(name).shape[1])))
