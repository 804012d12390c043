"""Targets: profiles that say where each rule is written, and a check that says what a graph breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from pydantic import ValidationError
from small_graphs import graph_of, node

from dfmeta.errors import UnknownName
from dfmeta.export import targets
from dfmeta.export.targets import profile
from dfmeta.export.targets._rules import _CHECKS, broken
from dfmeta.export.targets.facts import Facts
from dfmeta.graph import Graph

NAMES = (
    "c-codegen",
    "cortex-m",
    "esp-dl",
    "ethos-u55",
    "float-any",
    "onnxruntime-int8",
    "openvino-int8",
    "tensorrt-int8",
)
CODE = {"source": "litert", "base_bytes": 1, "bytes_per_node": 1, "soft_float_bytes": 1}
RULES = {model.model_fields["rule"].annotation for model in get_args(get_args(profile.Rule)[0])}


def quantized(
    codes: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    values: Any = np.uint8,
    weight_zero: int = 0,
    step: float = 0.125,
) -> Graph:
    """A convolution in QuantizeLinear and DequantizeLinear."""
    codes = np.full((16, 16, 1, 1), 3, np.int8) if codes is None else codes
    scales = np.full(len(codes), 0.25, np.float32) if scales is None else scales
    constants = {"s": np.float32(step), "z": np.asarray(7 if values is np.uint8 else 0, values), "codes": codes}
    constants |= {"ws": scales, "wz": np.full(scales.shape, weight_zero, codes.dtype)}
    steps = (scales * np.float32(step)).astype(np.float32).reshape(-1)
    constants |= {"b": np.zeros(len(codes), np.int32) if bias is None else bias, "bs": np.resize(steps, len(codes))}
    nodes = [
        node("DequantizeLinear", "codes ws wz", "w", **({"axis": 0} if scales.ndim else {})),
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w bias", "c"),
        node("Relu", "c", "y"),
    ]
    if constants["b"].dtype == np.int32:
        nodes.insert(0, node("DequantizeLinear", "b bs", "bias", axis=0))
    else:
        constants["bias"] = constants.pop("b")
        del constants["bs"]
    return graph_of(nodes, **constants)


def rules_of(graph: Graph, target: str, **budget: Any) -> set[str]:
    return {one.rule for one in targets.check(graph, target, **budget).violations}


def test_these_are_the_targets() -> None:
    assert targets.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_says_where_it_is_written(name: str) -> None:
    target = targets.load(name)
    assert target.name == name
    for source in target.sources.values():
        assert source.url.startswith("https://")
        assert source.version
        assert source.date.year >= 2025
    operators = [one for rule in target.rules if rule.rule == "operators" for one in rule.allowed]
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    assert sorted(set(operators)) == operators
    assert set(operators) <= known


def test_every_rule_of_the_schema_has_a_check_and_a_test_below() -> None:
    names = {get_args(one)[0] for one in RULES}
    assert names == set(_CHECKS) == set(BROKEN)


def test_boards_hold_what_their_makers_say() -> None:
    found = {board.name: (board.ram, board.flash) for name in NAMES for board in targets.load(name).boards}
    assert found == {
        "stm32l4r5": (640 * 1024, 2 * 1024**2),
        "max78000": (128 * 1024, 512 * 1024),
        "esp32-s3": (320 * 1024, 8 * 1024**2),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"profile": "dfmeta.target/2"}, "dfmeta.target/1"),
        ({"rules": [{"rule": "colour", "source": "litert"}]}, "colour"),
        ({"rules": [{"rule": "opset", "most": 18}]}, "source"),
        ({"sources": {}}, "missing, or nothing names them"),
        ({"more": 1}, "more"),
        ({"code": {**CODE, "source": "nobody"}}, "missing, or nothing names them"),
        ({"code": {**CODE, "bytes_per_node": -1}}, "bytes_per_node"),
    ],
    ids=str,
)
def test_a_wrong_profile_is_refused(change: dict[str, Any], said: str) -> None:
    raw = json.loads((resources.files("dfmeta.export.targets") / "cortex-m.json").read_text())
    with pytest.raises(ValidationError, match=said):
        profile.Target.model_validate({**raw, **change})


@pytest.mark.parametrize(("name", "near"), [("cortex-n", "cortex-m"), ("../cortex-m", "cortex-m"), ("tensorrt", None)])
def test_a_target_that_does_not_exist(name: str, near: str | None) -> None:
    with pytest.raises(UnknownName) as caught:
        targets.check(quantized(), name)
    assert all(one in str(caught.value) for one in NAMES)
    assert near is None or f"Did you mean {near!r}?" in str(caught.value)


def test_a_board_that_the_target_does_not_have() -> None:
    with pytest.raises(UnknownName, match="stm32l4r5"):
        targets.check(quantized(), "cortex-m", board="stm32l4r6")


def target_with(**rule: Any) -> targets.Target:
    source = {"title": "t", "url": "https://example.org", "version": "1", "date": "2026-01-01", "evidence": "measured"}
    return targets.Target.model_validate(
        {
            "profile": "dfmeta.target/1",
            "name": "own",
            "title": "t",
            "reads": "onnx",
            "rules": [{"source": "s", **rule}],
            "sources": {"s": source},
        }
    )


def conv(**attributes: Any) -> Callable[[], Graph]:
    def make() -> Graph:
        groups = attributes.get("group", 1)
        shape = (16, 16 // groups, *attributes.get("kernel_shape", (1, 1)))
        return graph_of([node("Conv", "x w", "y", **attributes)], w=np.ones(shape, np.float32))

    return make


# Rule: its settings, a graph that breaks it, one that does not, what is said of the first.
BROKEN: dict[str, tuple[dict[str, Any], Callable[[], Graph], Callable[[], Graph], str]] = {
    "operators": (
        {"allowed": ["Conv"]},
        lambda: graph_of([node("Mish", "x", "y")]),
        conv(),
        "node 'y' (Mish): found operator Mish",
    ),
    "opset": (
        {"least": 13, "most": 17},
        conv(),
        lambda: graph_of([node("Relu", "x", "y")], opset=17),
        "model.onnx: found opset 18, expected 13 to 17",
    ),
    "ir-version": (
        {"most": 8},
        lambda: graph_of([node("Relu", "x", "y")], ir_version=10),
        conv(),
        "found IR version 10, expected at most 8",
    ),
    "static-shapes": (
        {"batch": 1},
        lambda: graph_of([node("Relu", "x", "y")], ["n", 3]),
        conv(),
        "input 'x': found shape ['n', 3], expected known sizes",
    ),
    "rank": (
        {"most": 3},
        conv(),
        lambda: graph_of([node("Relu", "x", "y")], [1, 3]),
        "value 'x' of 4 axes, expected at most 3",
    ),
    "axis-size": (
        {"most": 15},
        conv(),
        lambda: graph_of([node("Relu", "x", "y")], [1, 3]),
        "an axis of 16 in 'x', expected at most 15",
    ),
    "types": (
        {"allowed": ["float32", "bool"]},
        lambda: graph_of([node("Cast", "x", "y", to=TensorProto.FLOAT)], dtype=TensorProto.DOUBLE),
        conv(),
        "value 'x' in float64, expected float32 or bool",
    ),
    "attribute": (
        {"operators": ["Conv"], "attribute": "strides", "least": 1, "most": 3},
        conv(strides=[1, 4]),
        conv(strides=[1, 3]),
        "strides [1, 4], expected at least 1 and at most 3",
    ),
    "window": (
        {"operators": ["Conv"], "area": 8, "height": 5},
        conv(kernel_shape=[3, 1], dilations=[3, 1]),
        conv(kernel_shape=[2, 3]),
        "a window of height 7, expected at most 5",
    ),
    "groups": ({}, conv(group=2), conv(group=16), "2 groups of 16 channels, expected 1 or 16"),
    "constant-weights": (
        {"operators": ["MatMul"]},
        lambda: graph_of([node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "y")], [2, 3]),
        lambda: graph_of([node("MatMul", "x w", "y")], [2, 3], w=np.ones((3, 2), np.float32)),
        "weights that are computed, expected constant ones",
    ),
    "form": ({"allowed": ["qdq"]}, conv(), quantized, "a float model, expected QuantizeLinear and DequantizeLinear"),
    "values": (
        {"dtypes": ["int8"], "symmetric": True},
        quantized,
        lambda: quantized(values=np.int8),
        "a value in uint8, expected int8",
    ),
    "weights": (
        {"dtypes": ["int8"], "least": -127},
        lambda: quantized(codes=np.full((16, 16, 1, 1), -128, np.int8)),
        lambda: quantized(codes=np.full((16, 16, 1, 1), -127, np.int8)),
        "node 'c' (Conv): found 256 weight codes below -127",
    ),
    "bias": (
        {"dtype": "int32"},
        lambda: quantized(bias=np.zeros(16, np.float32)),
        quantized,
        "node 'c' (Conv): found a bias in float32, expected int32",
    ),
    "channel-multiple": (
        {"of": 16},
        lambda: graph_of(
            [node("Conv", "x v", "c"), node("Conv", "c w", "y")],
            v=np.ones((12, 16, 1, 1), np.float32),
            w=np.ones((3, 12, 1, 1), np.float32),
        ),
        lambda: graph_of(
            [node("Conv", "x v", "c"), node("Conv", "c w", "y")],
            v=np.ones((32, 16, 1, 1), np.float32),
            w=np.ones((3, 32, 1, 1), np.float32),
        ),
        "12 channels, expected a multiple of 16",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule(name: str) -> None:
    settings, bad, good, said = BROKEN[name]
    target = target_with(rule=name, **settings)
    found = list(broken(Facts(bad()), target))
    assert found
    assert {one.rule for one in found} == {name}
    assert said in str(found[0])
    assert all(one.fix and one.source is not None and not one.advice for one in found)
    assert list(broken(Facts(good()), target)) == []
    advised = targets.check(bad(), target_with(rule=name, advice=True, fix="So.", **settings))
    assert advised.fits
    assert {one.fix for one in advised.advice} == {"So."}


@pytest.mark.parametrize(
    ("settings", "bad", "said"),
    [
        ({"dtypes": ["int8"]}, lambda: quantized(weight_zero=2), "weights with zero point 2, expected 0"),
        ({"dtypes": ["uint8"]}, quantized, "weights in int8, expected uint8"),
        (
            {"dtypes": ["int8"], "per_channel": ["Gemm"]},
            lambda: quantized(scales=np.linspace(0.1, 1, 16, dtype=np.float32)),
            "16 scales of weights, expected one, as only Gemm take more",
        ),
        (
            {"dtypes": ["int8"], "power_of_two": True},
            lambda: quantized(scales=np.full(16, 0.3, np.float32)),
            "weights of scale 0.3, expected a power of two",
        ),
        ({"dtypes": ["int8"], "absolute_sum": 767}, quantized, "absolute codes that sum to 768, expected at most 767"),
    ],
    ids=lambda one: str(one) if isinstance(one, dict) else "",
)
def test_rules_of_weights(settings: dict[str, Any], bad: Callable[[], Graph], said: str) -> None:
    (found,) = broken(Facts(bad()), target_with(rule="weights", **settings))
    assert said in str(found)


def test_rules_of_values() -> None:
    power = target_with(rule="values", dtypes=["uint8"], power_of_two=True)
    assert list(broken(Facts(quantized(step=0.125)), power)) == []
    assert "a value of scale 0.1, expected a power of two" in str(next(broken(Facts(quantized(step=0.1)), power)))
    symmetric = target_with(rule="values", dtypes=["uint8"], symmetric=True)
    assert "a value with zero point 7, expected 0" in str(next(broken(Facts(quantized()), symmetric)))


def test_a_quantized_model_fits_where_it_should() -> None:
    graph = quantized()
    fits = {name: targets.check(graph, name).fits for name in NAMES}
    assert fits == {
        "c-codegen": False,
        "cortex-m": True,
        "esp-dl": False,
        "ethos-u55": False,
        "float-any": False,
        "onnxruntime-int8": True,
        "openvino-int8": True,
        "tensorrt-int8": False,
    }
    assert rules_of(graph, "tensorrt-int8") == {"values", "bias"}
    assert rules_of(graph, "c-codegen") == {"form"}
    assert rules_of(quantized(values=np.int8, bias=np.zeros(16, np.float32)), "tensorrt-int8") == set()


def test_a_float_model_against_an_int8_target() -> None:
    (one,) = targets.check(conv()(), "cortex-m").violations
    assert (one.rule, one.found) == ("form", "a float model")
    assert "dfmeta quantize BUNDLE --target cortex-m" in one.fix
    assert one.source is not None
    assert one.source.url == "https://st.com/resource/en/data_brief/stedgeai-core.pdf"


@pytest.mark.parametrize(("axis", "taken"), [(1, True), (-1, True), (0, False)])
def test_the_axis_of_a_softmax_may_be_counted_from_the_end(axis: int, taken: bool) -> None:
    graph = graph_of([node("Softmax", "x", "y", axis=axis)], [1, 3])
    assert ("attribute" not in rules_of(graph, "cortex-m")) is taken


def test_what_stays_in_floating_point_is_advice() -> None:
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Conv", "d w", "y")]
    constants = {"s": np.float32(1), "z": np.uint8(0), "w": np.ones((16, 16, 1, 1), np.float32)}
    found = targets.check(graph_of(nodes, **constants), "cortex-m")
    assert found.fits
    assert [one.found for one in found.advice] == ["weights in floating point"]


def test_operators_that_the_target_lacks() -> None:
    graph = graph_of([node("Mish", "x", "a"), node("Selu", "a", "b"), node("Mish", "b", "y")])
    found = [one for one in targets.check(graph, "esp-dl").violations if one.rule == "operators"]
    assert [one.where for one in found] == ["node 'a' (Mish)", "node 'b' (Selu)", "node 'y' (Mish)"]


def test_dynamic_shapes_and_opsets_too_new() -> None:
    graph = graph_of([node("Relu", "x", "y")], ["n", 3, "h", "w"], opset=22, ir_version=10)
    assert rules_of(graph, "cortex-m") >= {"static-shapes", "opset", "ir-version"}
    assert rules_of(graph, "float-any") == {"static-shapes", "opset", "ir-version"}
    assert rules_of(graph, "onnxruntime-int8") == {"form"}


def test_a_budget_is_met_or_not_to_the_byte() -> None:
    graph = quantized()
    costs = targets.check(graph, "cortex-m").costs
    assert costs is not None
    # Input in floating point and its integers, then integers and their result.
    assert costs.arena_bytes == 4 * 1024 + 1024
    ram, flash = costs.arena_bytes, costs.flash_bytes
    assert rules_of(graph, "cortex-m", ram=ram, flash=flash) == set()
    assert rules_of(graph, "cortex-m", ram=ram - 1, flash=flash - 1) == {"ram", "flash"}
    (one,) = targets.check(graph, "cortex-m", ram=1000).violations
    assert (one.found, one.expected) == (f"{ram} bytes of values", "at most 1000")
    assert "x (4096)" in one.fix


def test_generated_code_needs_all_temporaries() -> None:
    nodes = [node("Relu", "x", "a"), node("Exp", "a", "b"), node("Neg", "b", "y")]
    found = targets.check(graph_of(nodes), "c-codegen", ram=5000)
    size = 4 * 16 * 64
    assert found.ram_bytes == 2 * size + 2 * size  # a and b; x and y, which the caller holds
    assert "ram" in {one.rule for one in found.violations}


@pytest.mark.parametrize(("fpu", "code"), [(None, 800 + 6 * 160), (True, 800 + 6 * 160), (False, 800 + 6 * 160 + 1200)])
def test_generated_code_is_flash_too(fpu: bool | None, code: int) -> None:
    found = targets.check(quantized(), "c-codegen", fpu=fpu)
    assert found.costs is not None
    # Codes, bias, scales and zero points: of the weights, of the bias, of the values.
    assert found.costs.constant_bytes == 256 + 4 * 16 + (4 + 1) * 16 + 4 * 16 + (4 + 1)
    assert (found.costs.code_bytes, found.fpu) == (code, fpu is not False)
    assert found.costs.flash_bytes == 469 + code


def test_no_other_target_predicts_code() -> None:
    assert [name for name in NAMES if targets.load(name).code is not None] == ["c-codegen"]
    costs = targets.check(quantized(), "cortex-m", fpu=False).costs
    assert costs is not None
    assert (costs.code_bytes, costs.flash_bytes) == (None, 469)


def test_a_budget_for_the_constants_alone_is_too_small_for_generated_code() -> None:
    (one,) = [one for one in targets.check(quantized(), "c-codegen", flash=2228).violations if one.rule == "flash"]
    assert str(one) == (
        "model.onnx: found 2229 bytes, 469 of constants and 1760 of code, expected at most 2228. "
        "The largest are codes (256), ws (64), bs (64): use fewer channels, low rank, or fewer bits; "
        "or fewer nodes, each of which is code."
    )
    assert "flash" not in rules_of(quantized(), "c-codegen", flash=2229)
    assert "flash" in rules_of(quantized(), "c-codegen", flash=2229, fpu=False)
    assert "flash" not in rules_of(quantized(), "cortex-m", flash=469)


def test_a_board_without_a_floating_point_unit_takes_more_code() -> None:
    raw = json.loads((resources.files("dfmeta.export.targets") / "c-codegen.json").read_text())
    raw["boards"].append({"name": "small", "ram": 1, "flash": 1, "fpu": False, "source": "mlperf"})
    target = profile.Target.model_validate(raw)
    graph = quantized()
    found = [targets.check(graph, target, board="small", fpu=fpu) for fpu in (None, True)]
    assert [(one.fpu, one.costs and one.costs.code_bytes) for one in found] == [(False, 2960), (True, 1760)]
    assert targets.check(graph, target, board="stm32l4r5").fpu


def test_a_board_gives_its_budget_and_its_source() -> None:
    big = graph_of([node("Relu", "x", "y")], [1, 64, 256, 256])
    found = targets.check(big, "cortex-m", board="stm32l4r5")
    assert (found.board, found.ram, found.flash) == ("stm32l4r5", 655_360, 2_097_152)
    (one,) = [one for one in found.violations if one.rule == "ram"]
    assert one.source is not None
    assert "mlcommons" in one.source.url
    assert targets.check(big, "cortex-m", board="stm32l4r5", ram=10**9).ram == 10**9


def test_unknown_sizes_leave_costs_open_and_budgets_unmet() -> None:
    graph = graph_of([node("NonZero", "x", "a"), node("Cast", "a", "y", to=TensorProto.FLOAT)], [1, 3])
    assert targets.check(graph, "onnxruntime-int8").costs is None
    assert "costs" in rules_of(graph, "onnxruntime-int8", ram=10**9)


def test_a_target_that_quantizes_itself_counts_in_eight_bits() -> None:
    graph = conv()()
    found, plain = targets.check(graph, "esp-dl"), targets.check(graph, "float-any")
    assert found.fits
    assert found.costs is not None
    assert plain.costs is not None
    assert plain.costs.arena_bytes == 4 * found.costs.arena_bytes
    assert found.costs.flash_bytes == 256 + 4 * 16


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (node("Gemm", "x w", "y"), (3, 5)),
        (node("Gemm", "x w", "y", transB=1), (5, 3)),
        (node("MatMul", "x w", "y"), (3, 5)),
        (node("ConvTranspose", "x w", "y"), (3, 5, 1, 1)),
    ],
    ids=["Gemm", "Gemm of a transposed weight", "MatMul", "ConvTranspose"],
)
def test_eight_bits_have_a_scale_for_each_output(made: onnx.NodeProto, shape: tuple[int, ...]) -> None:
    graph = graph_of([made], [1, 3, *shape[2:]], w=np.ones(shape, np.float32))
    costs = targets.check(graph, "ethos-u55").costs
    assert costs is not None
    assert costs.flash_bytes == 15 + 4 * 5


def test_it_is_all_in_json_types() -> None:
    found = targets.check(conv()(), "cortex-m", ram=1)
    document = json.loads(json.dumps(found.as_dict()))
    assert document["fits"] is False
    assert [one["rule"] for one in document["violations"]] == ["form", "ram"]
    assert document["violations"][0]["source"]["date"] == "2026-11-20"
    assert document["violations"][1]["source"] is None
