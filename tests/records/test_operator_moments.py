"""Which record belongs to which operator, and what its numbers are, against sums over the data itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.graph.operator_inputs import OperatorInput
from dfmeta.graph.ops.windows import Window
from dfmeta.records import PublishedRecords
from dfmeta.records.operator_moments import histogram_record, moment_record, operator_moment
from dfmeta.records.published import Statistic

WINDOW = Window((3, 2), (2, 1), (1, 1), (1, 0), (1, 2))
OPERATOR = OperatorInput("c", "Conv", "w", "x", 1, WINDOW, 2)
CONFIGURATION: Mapping[str, Any] = {
    "form": "full",
    "storage": "float32",
    "kernel": [3, 2],
    "strides": [2, 1],
    "dilations": [1, 1],
    "pads": [1, 0, 1, 2],
    "groups": 2,
}
ROWS = {"form": "full", "storage": "float32"}
PICTURES = torch.randn(3, 4, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def statistic(values: torch.Tensor, configuration: Mapping[str, Any], features: int, **changes: Any) -> Statistic:
    """A record of ``values`` at the value ``x``, as a bundle would hold it."""
    accumulator = KINDS.load("second-moment", "accumulate").Accumulator(features, 1, configuration)
    accumulator.update(values, torch.zeros(len(values), dtype=torch.int64))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in accumulator.tensors(None, 1).items()}
    members: dict[str, Any] = {
        "record": "r0",
        "site": "s0",
        "value": "x",
        "kind": "second-moment",
        "by_class": False,
        "features": "patch" if "kernel" in configuration else "flattened",
        "feature_axis": 1,
        "tensors": tensors,
        "configuration": configuration,
    }
    return Statistic(**{**members, **changes})


@pytest.fixture(scope="module")
def recorded() -> Statistic:
    return statistic(PICTURES, CONFIGURATION, 12)


def found(entry: Statistic, operator: OperatorInput = OPERATOR) -> Statistic | None:
    return moment_record(PublishedRecords((entry,)), operator)


def patches() -> np.ndarray:
    """``[2, n, 12]``: what each group of the convolution meets, by plain loops."""
    padded = np.pad(PICTURES.numpy(), ((0, 0), (0, 0), (1, 1), (0, 2)))
    rows = [
        padded[unit, :, top : top + 3, left : left + 2].reshape(2, 12)
        for unit in range(3)
        for top in range(0, padded.shape[2] - 2, 2)
        for left in range(padded.shape[3] - 1)
    ]
    return np.stack(rows, axis=1)


@pytest.mark.parametrize(("form", "tolerance"), [("full", 1e-5), ("toeplitz", None), ("diagonal", None)])
def test_the_numbers_are_those_of_the_patches(form: str, tolerance: float | None) -> None:
    entry = statistic(PICTURES, {**CONFIGURATION, "form": form}, 12)
    moment, rows = operator_moment(entry), patches()
    assert moment is not None
    assert (moment.form, moment.count, moment.record, moment.joint) == (form, rows.shape[1], "r0", form != "diagonal")
    np.testing.assert_allclose(moment.mean, rows.mean(1), atol=1e-6)
    exact = np.einsum("gnd,gne->gde", rows, rows) / rows.shape[1]
    if tolerance is not None:
        np.testing.assert_allclose(moment.whole, exact, atol=tolerance)
    assert moment.whole.shape == exact.shape


def test_an_operator_finds_its_own_record(recorded: Statistic) -> None:
    assert found(recorded) is recorded


@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel", (2, 3)), ("strides", (1, 1)), ("dilations", (2, 1)), ("before", (0, 0)), ("after", (0, 2))],
)
def test_the_record_of_another_window_is_none_of_its(recorded: Statistic, name: str, value: tuple[int, int]) -> None:
    other = OperatorInput("c", "Conv", "w", "x", 1, WINDOW._replace(**{name: value}), 2)
    assert found(recorded, other) is None


@pytest.mark.parametrize(
    "operator",
    [
        OperatorInput("c", "Conv", "w", "x", 1, WINDOW, 1),
        OperatorInput("c", "Conv", "w", "z", 1, WINDOW, 2),
        OperatorInput("c", "Gemm", "w", "x", 1),
        OperatorInput("c", "Conv", "w", "x", None, left_out="its sizes are not all known"),
    ],
    ids=["other groups", "another value", "no window", "left out"],
)
def test_the_record_of_another_operator_is_none_of_its(recorded: Statistic, operator: OperatorInput) -> None:
    assert found(recorded, operator) is None


def test_records_by_class_and_of_other_kinds_are_none() -> None:
    assert found(statistic(PICTURES, CONFIGURATION, 12, by_class=True)) is None
    assert found(statistic(PICTURES, CONFIGURATION, 12, kind="moments")) is None


def test_a_matrix_product_reads_rows_along_its_own_axis() -> None:
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    entry = statistic(rows, ROWS, 5)
    assert found(entry, OperatorInput("g", "Gemm", "w", "x", 1)) is entry
    assert found(entry, OperatorInput("g", "MatMul", "w", "x", 2)) is None
    assert found(entry) is None
    moment = operator_moment(entry)
    assert moment is not None
    np.testing.assert_allclose(moment.whole, (rows.T @ rows / 20)[None].numpy(), atol=1e-6)


def test_what_was_not_observed_says_nothing(recorded: Statistic) -> None:
    empty = {name: torch.zeros_like(tensor) for name, tensor in recorded.tensors.items()}
    entry = statistic(PICTURES, CONFIGURATION, 12, tensors=empty)
    assert found(entry) is entry
    assert operator_moment(entry) is None


def test_histograms_are_found_by_value() -> None:
    entry = statistic(PICTURES, CONFIGURATION, 12, kind="histogram")
    assert histogram_record(PublishedRecords((entry,)), "x") is entry
    assert histogram_record(PublishedRecords((entry,)), "z") is None
