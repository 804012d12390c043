"""Rules about operators, shapes and the file, and the list of all rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dfmeta.export.targets import _quantized_rules, profile
from dfmeta.export.targets._finding import Finding, listed
from dfmeta.export.targets.facts import WEIGHTED, Facts
from dfmeta.export.targets.violation import Violation

_CANONICAL = "Bring it into the canonical form: dfmeta.export.canonical.canonicalize."
# What exporters leave behind, and the canonical form is mostly without.
_FOLDED = frozenset(
    {"BatchNormalization", "CastLike", "Constant", "ConstantOfShape", "Dropout", "Identity", "ReduceMean", "Shape"}
)
_STATIC = "Fix the sizes: the canonical form has batch 1."


def broken(facts: Facts, target: profile.Target) -> Iterator[Violation]:
    """Every place where a graph breaks a rule of a target, in the order of the rules."""
    for rule in target.rules:
        source = target.sources[rule.source]
        for found in _CHECKS[rule.rule](facts, rule, target.name):
            fix, advice = rule.fix or found.fix, rule.advice or found.advice
            yield Violation(rule.rule, found.where, found.found, found.expected, fix, source, advice)


def _operators(facts: Facts, rule: profile.Operators, target: str) -> Iterator[Finding]:
    for label, node in facts.nodes:
        if node.op_type not in rule.allowed:
            fix = _CANONICAL if node.op_type in _FOLDED else "Use a network without it, or run that part elsewhere."
            yield Finding(label, f"operator {node.op_type}", f"one of {len(rule.allowed)} operators of the target", fix)


def _opset(facts: Facts, rule: profile.Opset, target: str) -> Iterator[Finding]:
    opset = facts.graph.opset
    if not rule.least <= opset <= rule.most:
        fix = _CANONICAL if opset > rule.most else "Export the model at a later opset."
        yield Finding(facts.graph.where, f"opset {opset}", f"{rule.least} to {rule.most}", fix)


def _ir_version(facts: Facts, rule: profile.IrVersion, target: str) -> Iterator[Finding]:
    if facts.graph.ir_version > rule.most:
        yield Finding(facts.graph.where, f"IR version {facts.graph.ir_version}", f"at most {rule.most}", _CANONICAL)


def _static_shapes(facts: Facts, rule: profile.StaticShapes, target: str) -> Iterator[Finding]:
    for value in facts.graph.inputs:
        free = [size for size in value.shape if not isinstance(size, int)]
        if free:
            yield Finding(f"input {value.name!r}", f"shape {list(value.shape)}", "known sizes", _STATIC)
        elif rule.batch is not None and value.shape and value.shape[0] != rule.batch:
            yield Finding(f"input {value.name!r}", f"batch {value.shape[0]}", f"{rule.batch}", _STATIC)
    if any(isinstance(size, str) for value in facts.graph.inputs for size in value.shape):
        return  # everything after a free input is free as well
    for label, name in facts.values():
        sizes = facts.sizes(name)
        if any(isinstance(size, str) for size in sizes) or (not sizes and name not in facts.graph.values):
            yield Finding(label, f"value {name!r} of shape {list(sizes)}", "known sizes", _STATIC)


def _rank(facts: Facts, rule: profile.Rank, target: str) -> Iterator[Finding]:
    for label, name in facts.values():
        rank = len(facts.sizes(name))
        if rank > rule.most and not rule.operators:
            yield Finding(label, f"value {name!r} of {rank} axes", f"at most {rule.most}", "Reshape before it.")
    for label, node in facts.nodes:
        ranks = [len(facts.sizes(name)) for name in (*node.input, *node.output) if name]
        if node.op_type in rule.operators and max(ranks, default=0) > rule.most:
            yield Finding(label, f"{node.op_type} of {max(ranks)} axes", f"at most {rule.most}", "Reshape before it.")


def _axis_size(facts: Facts, rule: profile.AxisSize, target: str) -> Iterator[Finding]:
    for label, name in facts.values():
        most = max((size for size in facts.sizes(name) if isinstance(size, int)), default=0)
        if most > rule.most:
            yield Finding(label, f"an axis of {most} in {name!r}", f"at most {rule.most}", "Use a smaller input.")


def _types(facts: Facts, rule: profile.Types, target: str) -> Iterator[Finding]:
    for label, name in facts.values():
        dtype = facts.graph.dtype(name)
        if dtype and dtype not in rule.allowed:
            yield Finding(label, f"value {name!r} in {dtype}", listed(rule.allowed), "Export the model in float32.")


def _attribute(facts: Facts, rule: profile.Attribute, target: str) -> Iterator[Finding]:
    for label, node in facts.nodes:
        given = facts.attributes(node).get(rule.attribute)
        if node.op_type not in rule.operators or given is None:
            continue
        numbers = list(given) if isinstance(given, list | tuple) else [given]
        wrong = [one for one in numbers if not _allowed(one, rule)]
        if wrong:
            fix = f"Use a network whose {node.op_type} has another {rule.attribute}."
            yield Finding(label, f"{rule.attribute} {given}", _range(rule), fix)


def _allowed(value: Any, rule: profile.Attribute) -> bool:
    if rule.values is not None:
        return value in rule.values
    return (rule.least is None or value >= rule.least) and (rule.most is None or value <= rule.most)


def _range(rule: profile.Attribute) -> str:
    if rule.values is not None:
        return listed([str(one) for one in rule.values])
    ends = (("at least", rule.least), ("at most", rule.most))
    return " and ".join(f"{words} {end}" for words, end in ends if end is not None)


def _window(facts: Facts, rule: profile.Window, target: str) -> Iterator[Finding]:
    for label, node in facts.nodes:
        given = facts.attributes(node)
        kernel = (
            given.get("kernel_shape") or list(facts.sizes(node.input[1]))[2:]
            if len(node.input) > 1
            else given.get("kernel_shape")
        )
        if node.op_type not in rule.operators or not isinstance(kernel, list) or not kernel:
            continue
        pads, dilations = given.get("pads"), given.get("dilations")
        if rule.padded and not (isinstance(pads, list) and any(pads)):
            continue
        steps = dilations if isinstance(dilations, list) else [1] * len(kernel)
        sizes = [(int(size) - 1) * int(step) + 1 for size, step in zip(kernel, steps, strict=False)]
        limits = (
            ("height", sizes[0], rule.height),
            ("width", sizes[-1], rule.width),
            ("area", int(np.prod(sizes)), rule.area),
        )
        for what, found, most in limits:
            if most is not None and found > most:
                yield Finding(label, f"a window of {what} {found}", f"at most {most}", "Use a smaller kernel.")


def _groups(facts: Facts, rule: profile.Groups, target: str) -> Iterator[Finding]:
    for label, node in facts.nodes:
        groups, sizes = facts.attributes(node).get("group", 1), facts.sizes(node.input[0]) if node.input else ()
        if node.op_type == "Conv" and len(sizes) > 1 and groups not in (1, sizes[1]):
            fix = "Use a dense or a depthwise convolution."
            yield Finding(label, f"{groups} groups of {sizes[1]} channels", f"1 or {sizes[1]}", fix)


def _constant_weights(facts: Facts, rule: profile.ConstantWeights, target: str) -> Iterator[Finding]:
    for label, node in facts.nodes:
        if node.op_type in rule.operators and node.input[WEIGHTED[node.op_type]] not in facts.constants:
            yield Finding(label, "weights that are computed", "constant ones", "Use a network of plain layers.")


def _channel_multiple(facts: Facts, rule: profile.ChannelMultiple, target: str) -> Iterator[Finding]:
    dense = [(label, node) for label, node in facts.nodes if node.op_type in ("Conv", "QLinearConv", "Gemm")]
    for label, node in dense[:-1]:
        sizes = facts.sizes(node.output[0])
        channels = sizes[1] if len(sizes) > 1 else 0
        if isinstance(channels, int) and channels % rule.of:
            fix = "Scale or prune to such a width: the rest of the last block is computed for nothing."
            yield Finding(label, f"{channels} channels", f"a multiple of {rule.of}", fix)


_CHECKS: dict[str, Callable[[Facts, Any, str], Iterator[Finding]]] = {
    "operators": _operators,
    "opset": _opset,
    "ir-version": _ir_version,
    "static-shapes": _static_shapes,
    "rank": _rank,
    "axis-size": _axis_size,
    "types": _types,
    "attribute": _attribute,
    "window": _window,
    "groups": _groups,
    "constant-weights": _constant_weights,
    "form": _quantized_rules.form,
    "values": _quantized_rules.values,
    "weights": _quantized_rules.weights,
    "bias": _quantized_rules.bias,
    "channel-multiple": _channel_multiple,
}
