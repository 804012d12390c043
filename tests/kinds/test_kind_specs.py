"""What a record may hold: each kind's own check refuses numbers that contradict it."""

from __future__ import annotations

import numpy as np
import pytest

from dfmeta._catalog import KINDS


def moments():
    return {
        "count": np.array([20, 0]),
        "mean": np.array([[1.0, 2], [0, 0]], np.float32),
        "var": np.array([[1.0, 0], [0, 0]], np.float32),
    }


def spectrum():
    return {
        "count": np.array([20, 0]),
        "mean": np.array([[1.0, 2], [0, 0]], np.float32),
        "eigenvalues": np.array([[2.0, 1], [0, 0]], np.float32),
        "eigenvectors": np.array([np.eye(2), np.zeros((2, 2))], np.float32),
        "residual_trace": np.array([0.5, 0], np.float32),
    }


def changed(tensors, name, index, value):
    tensors[name][index] = value
    return tensors


@pytest.mark.parametrize(
    ("kind", "tensors", "codes"),
    [
        ("moments", moments(), []),
        ("spectrum", spectrum(), []),
        ("moments", changed(moments(), "mean", (0, 0), np.nan), ["not-finite"]),
        ("moments", changed(moments(), "var", (0, 0), -1), ["negative"]),
        ("moments", changed(moments(), "count", 0, -1), ["negative"]),
        ("moments", changed(moments(), "mean", (1, 0), 3), ["filler"]),
        ("spectrum", changed(spectrum(), "eigenvalues", (0, 1), 3), ["unsorted"]),
        ("spectrum", changed(spectrum(), "eigenvalues", (0, 1), -1), ["negative"]),
        ("spectrum", changed(spectrum(), "eigenvectors", (0, 0, 1), 0.5), ["not-orthonormal"]),
        ("spectrum", changed(spectrum(), "residual_trace", 0, np.inf), ["not-finite"]),
        ("spectrum", changed(spectrum(), "residual_trace", 1, 1), ["filler"]),
    ],
)
def test_numbers_that_contradict_the_kind_are_problems(kind, tensors, codes):
    problems = KINDS.load(kind, "spec").check(tensors, "records[0]")
    assert [problem.code for problem in problems] == codes
    assert all(problem.where.startswith("records[0]") for problem in problems)


def test_numbers_too_large_to_multiply_are_not_orthonormal():
    tensors = {name: values.astype(np.float64) for name, values in spectrum().items() if name != "count"}
    tensors["eigenvectors"][0] = [[1e300, 1e300], [1e300, -1e300]]
    problems = KINDS.load("spectrum", "spec").check({**tensors, "count": np.array([20, 0])}, "records[0]")
    assert [problem.code for problem in problems] == ["not-orthonormal"]


@pytest.mark.parametrize("kind", KINDS.names())
def test_every_kind_has_a_page_that_names_its_tensors(kind, repository):
    page = (repository / "spec" / "record-kinds" / f"{kind}.md").read_text()
    spec = KINDS.load(kind, "spec")
    assert f"version {spec.VERSION}" in page
    configuration = {"rank": 2, "paired_feature_count": 3, "form": "full", "storage": "float32"}
    for name in spec.layout(4, None, configuration):
        assert f"| `{name}` |" in page
    for key, value in spec.CONVENTIONS.items():
        assert f"`{key}: {value}`" in page
