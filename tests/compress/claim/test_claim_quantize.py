"""Quantizing from records gives the integers that the data itself gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference_quantization as rounding
from claim_case import SAME_INTEGERS, SAME_SCALES, Case, codes_of, equal, matrices
from reference_data import layers

from dfmeta.compress import quantize
from dfmeta.data import open_data


@pytest.mark.parametrize("bits", ["w8", "w4", "w3", "w2"])
def test_gptq_gives_the_integers_of_the_data(case: Case, bits: str) -> None:
    result = quantize.run(case.graph, case.records, quantize.Config(bits))
    expected = []
    for layer, report in zip(case.layers, result.layers, strict=True):
        limits = rounding.limits_of(report.bits)
        if report.bits > 6:
            scales = rounding.best_for_nearest(layer.weight, layer.samples, limits)
            expected.append((rounding.gptq(layer.weight, layer.samples, scales, limits), scales))
        else:
            scales, codes = rounding.best_for_gptq(layer.weight, layer.samples, limits)
            expected.append((codes, scales))
    compare(case, result, expected)


@pytest.mark.parametrize("scales", ["largest", "grid", "weighted"])
@pytest.mark.parametrize("rule", ["nearest", "gptq"])
def test_every_scale_and_rule_gives_the_integers_of_the_data(case: Case, scales: Any, rule: Any) -> None:
    result = quantize.run(case.graph, case.records, quantize.Config("w4", rounding=rule, scales=scales))
    expected = []
    for layer, report in zip(case.layers, result.layers, strict=True):
        limits = rounding.limits_of(report.bits)
        chosen = rounding.largest(layer.weight, limits)
        if scales != "largest":
            seen = layer.samples if scales == "weighted" else None
            chosen = rounding.best_for_nearest(layer.weight, seen, limits)
        feedback = rounding.gptq(layer.weight, layer.samples, chosen, limits)
        expected.append((feedback if rule == "gptq" else rounding.nearest(layer.weight, chosen, limits), chosen))
    compare(case, result, expected)


def compare(case: Case, result: quantize.Result, expected: list[Any]) -> None:
    """Integers, scales and corrected biases against those of the data."""
    found = codes_of(result)
    assert equal([codes for codes, _ in found], [codes for codes, _ in expected]) >= SAME_INTEGERS
    corrected = [bias for _, _, bias in matrices(result.model.graph)]
    for (ours, scales), (codes, wanted), layer, bias in zip(found, expected, case.layers, corrected, strict=True):
        rows = (ours == codes).all(1)
        np.testing.assert_allclose(scales[rows], wanted[rows], rtol=SAME_SCALES)
        best = rounding.corrected_bias(layer.bias, layer.weight, wanted[:, None] * codes, layer.mean)
        np.testing.assert_allclose(bias[rows], best[rows], atol=1e-5 * np.abs(best).max())


def test_other_data_gives_other_integers(digits_case: Case, mnist_case: Case) -> None:
    """So that what the tests above find says something: half of the images inverted, and it no longer holds."""
    result = quantize.run(digits_case.graph, digits_case.records, quantize.Config("w3", scales="largest"))
    inverted = next(open_data("digits:train").batches(2000)).inputs["x"][:, None] / 255.0
    inverted[::2] = 1 - inverted[::2]
    expected = []
    for layer, report in zip(layers(digits_case.graph.model, inverted), result.layers, strict=True):
        limits = rounding.limits_of(report.bits)
        scales = rounding.largest(layer.weight, limits)
        expected.append(rounding.gptq(layer.weight, layer.samples, scales, limits))
    assert equal([codes for codes, _ in codes_of(result)], expected) < 0.97
