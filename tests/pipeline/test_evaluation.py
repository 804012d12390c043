"""Accuracy and agreement, against a recount in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from dfmeta.data import from_flags, open_data
from dfmeta.errors import BundleError, DataError, GraphError
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import evaluate


@pytest.fixture(scope="module")
def recount(digits_teacher, distilled):
    """What teacher and student name, and the labels, for all test digits."""
    batch = next(open_data("digits:test").batches(1000))
    inputs = {"image": (batch.inputs["x"][:, None] / 255).astype(np.float32)}
    graphs = (digits_teacher, Graph.from_file(distilled.path))
    teacher, student = (OrtGraph(g, dynamic_batch=True).run(inputs)["logits"].argmax(1) for g in graphs)
    return teacher, student, batch.labels


def test_accuracy_and_agreement_are_counts(distilled, digits_bundle, recount):
    teacher, student, labels = recount
    found = evaluate(distilled.path, "digits:test", bundle=digits_bundle, batch_size=33)
    assert found.count == len(labels) == 355
    assert found.accuracy == pytest.approx(100 * np.mean(student == labels))
    assert found.teacher_accuracy == pytest.approx(100 * np.mean(teacher == labels))
    assert found.agreement == pytest.approx(100 * np.mean(student == teacher))
    assert found.teacher_accuracy > 90
    assert found.costs == distilled.costs
    assert found.teacher_costs == distilled.teacher_costs


def test_a_limit_is_a_draw(distilled, recount):
    drawn = open_data("digits:test", limit=50, seed=4).indices
    ops = from_flags(1 / 255)
    found = evaluate(distilled.path, "digits:test", preprocessing=ops, limit=50, seed=4)
    _, student, labels = (each[drawn] for each in recount)
    assert (found.count, found.accuracy) == (50, pytest.approx(100 * np.mean(student == labels)))
    assert found.agreement is found.teacher_accuracy is found.teacher_costs is None


def test_the_teacher_agrees_with_itself(digits_bundle):
    found = evaluate(digits_bundle / "model.onnx", "digits:test", bundle=digits_bundle)
    assert found.agreement == 100
    assert found.accuracy == found.teacher_accuracy


def test_without_labels_there_is_agreement_alone(distilled, digits_bundle, tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((5, 8, 8), np.uint8))
    found = evaluate(distilled.path, str(tmp_path / "set.npz"), bundle=digits_bundle)
    assert found.accuracy is found.teacher_accuracy is None
    assert found.agreement in (0, 100)


def test_progress_is_told(distilled, digits_bundle):
    told = []
    evaluate(
        distilled.path,
        "digits:test",
        bundle=digits_bundle,
        batch_size=200,
        progress=lambda *facts: told.append(facts),
    )
    assert told == [("evaluate", 200, 355, 0.0), ("evaluate", 355, 355, 0.0)]


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), (9,)), ((1, 9, 9), (10,)), ((64,), (10,))])
def test_another_bundles_teacher(linear, digits_bundle, tmp_path, shape, classes):
    (tmp_path / "other.onnx").write_bytes(linear(shape, classes).raw)
    with pytest.raises(DataError, match=r"--bundle: found a teacher with inputs float32 \[1, 8, 8\] and 10 classes"):
        evaluate(tmp_path / "other.onnx", "digits:test", bundle=digits_bundle)


def test_a_model_that_is_no_classifier(linear, tmp_path):
    (tmp_path / "dense.onnx").write_bytes(linear((1, 8, 8), (10, 4)).raw)
    with pytest.raises(GraphError, match=r"\['batch', 10, 4\].*\[batch, classes\]"):
        evaluate(tmp_path / "dense.onnx", "digits:test", preprocessing=from_flags(1 / 255))


def test_labels_that_the_model_does_not_have(linear, tmp_path):
    (tmp_path / "four.onnx").write_bytes(linear((1, 8, 8), (4,)).raw)
    with pytest.raises(DataError, match="0 to 3, the model's 4 classes"):
        evaluate(tmp_path / "four.onnx", "digits:test", preprocessing=from_flags(1 / 255))


def test_a_model_or_bundle_that_is_not_there(distilled, tmp_path):
    with pytest.raises(GraphError, match="no readable file"):
        evaluate(tmp_path / "nowhere.onnx", "digits:test")
    with pytest.raises(BundleError, match="nowhere"):
        evaluate(distilled.path, "digits:test", bundle=tmp_path / "nowhere")
