"""Methods that draw from data or learn along with a student, from the verbs that run them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from dfmeta.compress.distill import Config
from dfmeta.data import fitted_input, open_data, preprocess
from dfmeta.errors import DataError, Diverged, MethodInput, StepError, UnknownName
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import distill, make_task, open_release, reconstruct, synthesise
from dfmeta.pipeline.synthesising import begin, source, trained_student
from dfmeta.schema import v1

QUICK = Config(steps=6, batch=16)


@pytest.fixture(scope="module")
def other_digits(digits, tmp_path_factory):
    """Another set of the same kind of picture: larger, in colour, labelled otherwise."""
    small = np.round(digits[0].numpy()[:60, 0] * 255).astype(np.uint8)
    large = np.repeat(np.repeat(small, 2, 1), 2, 2)
    path = tmp_path_factory.mktemp("other") / "other.npz"
    np.savez(path, x=np.stack([large] * 3, -1), y=np.full(60, 77))
    return path


def test_data_is_a_method_and_the_default_where_there_is_data(digits_bundle, tmp_path):
    named, implied = (
        distill(
            digits_bundle, tmp_path / f"{i}.onnx", student="tiny8", data="digits:train", config=QUICK, method=method
        )
        for i, method in enumerate(("data", None))
    )
    assert named.method == implied.method == "data"
    assert named.loss == implied.loss


def test_the_labels_of_data_are_its_own(digits_bundle, digits, tmp_path):
    opened = open_release(digits_bundle)
    images, labels = digits
    np.savez(tmp_path / "renamed.npz", x=images.numpy(), y=(labels.numpy() + 1) % 10)
    inputs, found = synthesise(opened, "data", 200, 0, data=str(tmp_path / "renamed.npz"))
    seen = make_task(opened.bundle, opened.graph, 0).logits(inputs).argmax(1)
    assert float((found == (seen + 1) % 10).float().mean()) > 0.9


def test_other_data_is_made_to_fit_and_labelled_by_the_teacher(digits_bundle, other_digits):
    opened = open_release(digits_bundle)
    inputs, labels = synthesise(opened, "alternative", 100, 0, data=str(other_digits))
    task = make_task(opened.bundle, opened.graph, 0)
    assert inputs.shape == (100, 1, 8, 8)
    assert torch.equal(labels, task.logits(inputs).argmax(1))
    with pytest.raises(DataError, match="label 77"):
        synthesise(opened, "data", 10, 0, data=str(other_digits))


def test_fitting_is_undone_padding(other_digits):
    """What is stored must be as large as the model's input less the padding that follows."""
    ops = [v1.Rescale(scale=1 / 255), v1.Pad(pixels=[1, 2, 3, 4])]
    entry = v1.Input(name="x", dtype="float32", shape=["batch", 1, 20, 26], modality="image", preprocessing=ops)
    found = fitted_input(entry, open_data(str(other_digits)))
    assert [op.op for op in found.preprocessing] == ["resize", "grayscale", "rescale", "pad"]
    assert found.preprocessing[0].size == [16, 20]
    images = np.zeros((2, 16, 16, 3), np.uint8)
    assert preprocess(images, found.preprocessing, "here").shape == (2, 1, 20, 26)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "noise", "data": "digits"}, MethodInput, "--data.*method data"),
        ({"method": "data"}, MethodInput, "no data.*--data"),
        ({"method": "noise", "student": "tiny8"}, MethodInput, "--student.*any student"),
        ({"method": "noise", "device": "cuda:99"}, StepError, "device 'cuda:99'"),
        ({"method": "noise", "device": "nowhere"}, StepError, "device 'nowhere'"),
        ({"method": "nose"}, UnknownName, "noise"),
    ],
)
def test_what_a_method_cannot_use(digits_bundle, tmp_path, options, error, text):
    out = tmp_path / "made.safetensors"
    with pytest.raises(error, match=text):
        reconstruct(digits_bundle, out, **options)
    assert not out.exists()


def test_a_method_may_learn_along_with_the_student(digits_bundle):
    """It takes a step before each so many of the student's, and none beforehand."""
    told = []

    class Alternating:
        steps, student_steps = 100, 3

        def advance(self):
            told.append("advance")
            return 0.0

        def sample(self, count):
            told.append("sample")
            return torch.zeros(count, 1, 8, 8), torch.zeros(count, dtype=torch.int64)

    draw = source(Alternating(), None)
    assert told == []
    for _ in range(7):
        draw(4)
    assert told == ["advance", "sample", "sample", "sample"] * 2 + ["advance", "sample"]


def test_a_trained_student_is_frozen_and_differentiable(digits_bundle, distilled):
    opened = open_release(digits_bundle)
    task = make_task(opened.bundle, opened.graph, 0)
    student = trained_student(str(distilled.path), task)
    inputs = task.normal(3, 1, 8, 8).requires_grad_()
    logits = student(inputs)
    logits.sum().backward()
    assert float(inputs.grad.abs().sum()) > 0
    assert not any(parameter.requires_grad for parameter in student.parameters())
    graph = OrtGraph(Graph.from_file(distilled.path), dynamic_batch=True)
    found = graph.run({"image": inputs.detach().numpy()})["logits"]
    np.testing.assert_allclose(found, logits.detach().numpy(), atol=1e-4)


def test_a_method_without_its_student(digits_bundle):
    opened = open_release(digits_bundle)
    task = make_task(opened.bundle, opened.graph, 0)
    assert begin(task, opened, "noise", student=None).steps == 0


FRAGILE = """
from torch import nn

class Fragile(nn.Sequential):
    calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.training and self.calls > FEW else 1.0)

def early(input_shape, classes):
    return Fragile(nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.mark.parametrize(("few", "kept"), [(70, 50), (20, 0)])
def test_the_last_good_student_is_written(digits_bundle, tmp_path, monkeypatch, few, kept):
    """Training that breaks down leaves the student of the last fifty steps, where there was one, and says where."""
    (tmp_path / f"fragile{few}.py").write_text(FRAGILE.replace("FEW", str(few)))
    monkeypatch.syspath_prepend(str(tmp_path))
    out, beside = tmp_path / "student.onnx", tmp_path / "student.last-good.onnx"
    options = {"student": f"fragile{few}:early", "method": "noise", "config": Config(steps=200, batch=16)}
    with pytest.raises(Diverged, match=f"step {few + 1}: found a loss of nan") as caught:
        distill(digits_bundle, out, **options)
    assert caught.value.kept == kept
    assert not out.exists()
    assert beside.exists() == (str(beside) in str(caught.value)) == bool(kept)
    if kept:
        onnx.checker.check_model(str(beside))
        with pytest.raises(Diverged, match="is there already"):
            distill(digits_bundle, out, **options)


def test_reconstruction_from_data_is_a_data_set(digits_bundle, other_digits, tmp_path):
    out = reconstruct(
        digits_bundle, tmp_path / "made.safetensors", method="alternative", data=str(other_digits), count=30
    )
    assert load_file(out)["x"].shape == (30, 1, 8, 8)
