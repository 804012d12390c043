"""Rules about integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dfmeta.export.targets import profile
from dfmeta.export.targets._finding import Finding, listed
from dfmeta.export.targets.facts import Facts, Quantized

_FORMS = {"none": "a float model", "qdq": "QuantizeLinear and DequantizeLinear", "qoperator": "integer operators"}


def form(facts: Facts, rule: profile.Form, target: str) -> Iterator[Finding]:
    """A float model for an integer target, or integers in another spelling."""
    wanted = " or ".join(_FORMS[one] for one in rule.allowed)
    if facts.form not in rule.allowed:
        fix = f"Quantize for it: dfmeta quantize BUNDLE --target {target} --out FILE.onnx."
        if "none" in rule.allowed:
            fix = "Give the float model: the target's own tool quantizes it from ranges (dfmeta convert)."
        yield Finding(facts.graph.where, _FORMS[facts.form], wanted, fix)
    elif facts.form != "none":
        for label in facts.float_weights():
            fix = "Record its input, so that it can be quantized, or expect it to run in floating point."
            yield Finding(label, "weights in floating point", "integers", fix, advice=True)


def values(facts: Facts, rule: profile.Values, target: str) -> Iterator[Finding]:
    """Types, zero points and scales of values."""
    fix = "Quantize with --set values=" + ("int8." if rule.symmetric or "uint8" not in rule.dtypes else "uint8.")
    for one in facts.quantized_values:
        if one.dtype not in rule.dtypes:
            yield Finding(one.where, f"a value in {one.dtype}", listed(rule.dtypes), fix)
        if rule.symmetric and not one.symmetric:
            yield Finding(one.where, f"a value with zero point {_zero(one)}", "0", fix)
        if rule.power_of_two and not one.power_of_two:
            yield _not_a_power(one)


def weights(facts: Facts, rule: profile.Weights, target: str) -> Iterator[Finding]:
    """Types, zero points, scales and codes of weights."""
    anew = f"Quantize anew: dfmeta quantize BUNDLE --target {target} --out FILE.onnx."
    for one in facts.weights:
        codes = np.asarray(one.codes)
        if one.dtype not in rule.dtypes:
            yield Finding(one.where, f"weights in {one.dtype}", listed(rule.dtypes), anew)
            continue
        if rule.symmetric and not one.symmetric:
            yield Finding(one.where, f"weights with zero point {_zero(one)}", "0", anew)
        low = int((codes.astype(np.int64) < rule.least).sum())
        if low:
            yield Finding(one.where, f"{low} weight codes below {rule.least}", f"codes from {rule.least}", anew)
        yield from _scales(one, rule)
        total = int(np.abs(codes.astype(np.int64)).sum())
        if rule.absolute_sum is not None and total > rule.absolute_sum:
            yield Finding(
                one.where, f"absolute codes that sum to {total}", f"at most {rule.absolute_sum}", "Use fewer channels."
            )


def _scales(one: Quantized, rule: profile.Weights) -> Iterator[Finding]:
    if rule.power_of_two and not one.power_of_two:
        yield _not_a_power(one)
    scales = np.zeros(0) if one.scale is None else one.scale
    several = bool((scales.reshape(-1)[1:] != scales.reshape(-1)[:1]).any())
    if several and rule.per_channel is not None and one.operator not in rule.per_channel:
        takes = f"one, as only {listed(rule.per_channel)} take more" if rule.per_channel else "one for the whole weight"
        yield Finding(one.where, f"{scales.size} scales of weights", takes, "Quantize this weight with one scale.")


def bias(facts: Facts, rule: profile.Bias, target: str) -> Iterator[Finding]:
    """Type of biases."""
    fix = f"Write it anew: dfmeta quantize BUNDLE --target {target} --out FILE.onnx."
    for label, dtype in facts.biases():
        if dtype != rule.dtype:
            yield Finding(label, f"a bias in {dtype}", rule.dtype, fix)


def _zero(one: Quantized) -> str:
    zeros = np.unique(np.asarray(one.zero))
    return str(zeros[zeros != 0][0])


def _not_a_power(one: Quantized) -> Finding:
    what = "weights" if one.codes is not None else "a value"
    first = "computed" if one.scale is None else f"{float(one.scale.reshape(-1)[0]):g}"
    fix = "Let the target's own tool quantize the float model from the recorded ranges."
    return Finding(one.where, f"{what} of scale {first}", "a power of two", fix)
