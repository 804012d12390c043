"""Factorising from records gives the layers that the data itself gives."""

from __future__ import annotations

import numpy as np
import pytest
import reference_factors as factors
from claim_case import SAME_LAYERS, Case, apart, shifted
from reference_data import Layer
from reference_quantization import corrected_bias

from dfmeta.compress import factorize
from dfmeta.graph import Graph


@pytest.mark.parametrize("form", factorize.FORMS)
@pytest.mark.parametrize("share", [0.75, 0.5])
def test_factorised_layers_are_those_of_the_data(case: Case, form: str, share: float) -> None:
    forms = (form,) if form == "svd" else (form, "svd")
    result = factorize.run(case.graph, case.records, factorize.Config(params=share, forms=forms))
    chains = chained(result.graph)
    assert {report.form for report in result.operators} >= {"svd"}
    for layer, report in zip(case.layers, result.operators, strict=True):
        weight, bias = chains[report.label]
        expected = factorised(layer, report)
        assert apart(weight, expected) < SAME_LAYERS
        best = corrected_bias(layer.bias, layer.weight, expected, layer.mean)
        np.testing.assert_allclose(bias, best, atol=SAME_LAYERS * shifted(layer, best))
        lost = np.square((layer.weight - expected) @ layer.samples.T).sum()
        assert report.error == pytest.approx(lost / np.square(layer.weight @ layer.samples.T).sum(), rel=1e-3, abs=1e-7)


def factorised(layer: Layer, report: factorize.FactorizedOperator) -> np.ndarray:
    if report.form == "whole":
        return layer.weight
    if report.form == "svd":
        return factors.low_rank(layer.weight, layer.samples, report.ranks[0])
    outputs, features = layer.weight.shape
    order = np.arange(features)
    shape = (outputs, -1, layer.kernel[1])
    if report.form == "tucker":
        shape = (outputs, -1, int(np.prod(layer.kernel)))
    if report.form == "columns":
        order = order.reshape(-1, *layer.kernel).swapaxes(1, 2).reshape(-1)
    kernel = layer.weight[:, order].reshape(shape)
    found = np.empty_like(layer.weight)
    found[:, order] = factors.staged(kernel, layer.samples[:, order], *report.ranks).reshape(outputs, -1)
    return found


def chained(graph: Graph) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the stages of each operator multiply out to, by their impulse response; and its bias."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for node in graph.model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        label, _, stage = node.name.rpartition(".")
        label = label if label and stage in ("in", "core", "out") else node.name
        weight = graph.initializers[node.input[1]].astype(np.float64)
        bias = graph.initializers[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(1)
        if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute):
            weight = weight.T
        before = found[label][0] if label in found else None
        found[label] = (weight if before is None else composed(weight, before), bias)
    return {label: (weight.reshape(len(weight), -1), bias) for label, (weight, bias) in found.items()}


def composed(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Two linear maps as one: a window of a window is as large as both together, less one."""
    if before.ndim == 2:
        return after @ before
    height, width = (a + b - 1 for a, b in zip(after.shape[2:], before.shape[2:], strict=True))
    whole = np.zeros((len(after), before.shape[1], height, width))
    for row, column in np.ndindex(after.shape[2:]):
        part = np.einsum("op,pihw->oihw", after[:, :, row, column], before)
        whole[:, :, row : row + before.shape[2], column : column + before.shape[3]] += part
    return whole
