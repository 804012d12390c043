"""Quantizers, integer arithmetic and attention against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dfmeta.errors import UnsupportedOperator
from dfmeta.graph import TorchGraph

rng = np.random.default_rng(9)


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def q(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def s(*shape: int) -> np.ndarray:
    return np.asarray(rng.random(shape) * 0.05 + 0.01, np.float32)


X = f(3, 4, 5) * 4
TIES = np.array([-0.75, -0.25, 0.25, 0.75, 1.25, 99, -99], np.float32)
ONE = np.array(0.5, np.float32)
TOKENS = f(2, 6, 12)
HEADS = f(2, 4, 6, 8)
MASK = rng.random((6, 6)) < 0.7
MASK[2] = False
CASES: list[tuple[Any, ...]] = [
    ("QuantizeLinear", (10, 13, 19, 21, 23), [X, ONE, np.array(7, np.uint8)], {}),
    ("QuantizeLinear", (13, 21), [TIES, ONE, np.array(-3, np.int8)], {}),
    ("QuantizeLinear", (13,), [X, ONE], {}),
    ("QuantizeLinear", (13,), [X, s(4), q(4, dtype=np.int8)], {"axis": 1}),
    ("QuantizeLinear", (13,), [X, s(5), q(5)], {"axis": -1}),
    ("QuantizeLinear", (21,), [X, s(3, 2, 5), q(3, 2, 5, dtype=np.int8)], {"axis": 1, "block_size": 2}),
    ("QuantizeLinear", (21,), [X * 900, ONE, np.array(-5, np.int16)], {}),
    ("QuantizeLinear", (21,), [X * 900, ONE, np.array(30000, np.uint16)], {}),
    ("QuantizeLinear", (21,), [X, ONE], {"output_dtype": TensorProto.INT8}),
    ("DequantizeLinear", (10, 13, 19, 21, 23), [q(3, 4), s(), np.array(7, np.uint8)], {}),
    ("DequantizeLinear", (13,), [q(3, 4, dtype=np.int8), s(4), q(4, dtype=np.int8)], {"axis": 1}),
    ("DequantizeLinear", (13,), [rng.integers(-99999, 99999, (4,)).astype(np.int32), s(4)], {"axis": 0}),
    ("DequantizeLinear", (21,), [q(3, 4, dtype=np.int8), s(3, 2)], {"axis": 1, "block_size": 2}),
    ("DequantizeLinear", (21,), [q(3, 4, dtype=np.uint16), s(), np.array(9, np.uint16)], {}),
    ("DequantizeLinear", (21,), [q(3, 4, dtype=np.int16), s(), np.array(9, np.int16)], {}),
    ("DynamicQuantizeLinear", (11,), [X], {}, 3),
    ("MatMulInteger", (10,), [q(3, 4), q(4, 5)], {}),
    (
        "MatMulInteger",
        (10,),
        [q(3, 4), q(4, 5, dtype=np.int8), np.array(7, np.uint8), np.array(3, np.int8)],
        {},
    ),
    (
        "MatMulInteger",
        (10,),
        [q(3, 4), q(4, 5, dtype=np.int8), np.array(7, np.uint8), q(5, dtype=np.int8)],
        {},
    ),
    ("ConvInteger", (10,), [q(1, 2, 5, 5), q(3, 2, 3, 3), np.array(7, np.uint8)], {"pads": [1, 1, 1, 1]}),
    (
        "QLinearMatMul",
        (10,),
        [
            q(3, 4),
            s(),
            np.array(9, np.uint8),
            q(4, 5),
            s(),
            np.array(100, np.uint8),
            ONE,
            np.array(3, np.uint8),
        ],
        {},
    ),
    (
        "QLinearConv",
        (10,),
        [
            *(q(1, 2, 5, 5), s(), np.array(99, np.uint8)),
            *(q(3, 2, 3, 3, dtype=np.int8), s(3), np.zeros(3, np.int8)),
            *(ONE, np.array(120, np.uint8), q(3, dtype=np.int16).astype(np.int32)),
        ],
        {"strides": [2, 2]},
    ),
    ("Attention", (23, 24), [HEADS, HEADS, f(2, 4, 6, 8)], {}),
    (
        "Attention",
        (23,),
        [TOKENS, f(2, 5, 12), f(2, 5, 16)],
        {"q_num_heads": 4, "kv_num_heads": 4, "scale": 0.3},
    ),
    ("Attention", (23,), [HEADS, f(2, 2, 6, 8), f(2, 2, 6, 8)], {"is_causal": 1}),
    ("Attention", (23,), [HEADS, HEADS, HEADS, MASK], {"softcap": 2.0}),
    ("Attention", (23,), [HEADS, HEADS, HEADS, f(2, 1, 6, 6)], {}),
    ("RotaryEmbedding", (23,), [HEADS, f(9, 4), f(9, 4), rng.integers(0, 9, (2, 6))], {}),
    ("RotaryEmbedding", (23,), [HEADS, f(2, 6, 4), f(2, 6, 4)], {"interleaved": 1}),
    (
        "RotaryEmbedding",
        (23,),
        [TOKENS, f(9, 2), f(9, 2), rng.integers(0, 9, (2, 6))],
        {"num_heads": 2, "rotary_embedding_dim": 4},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_quantization(case: tuple[Any, ...], same_as_onnxruntime: Callable[..., None]) -> None:
    same_as_onnxruntime(*case)


def test_four_bit_weights(build_graph: Callable[..., Any], compare_with_onnxruntime: Callable[..., None]) -> None:
    packed = helper.make_tensor("w", TensorProto.INT4, [2, 3], [-8, 7, 1, 0, -1, 3])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=packed),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["real"]),
        helper.make_node("MatMul", ["x", "real"], ["y"]),
    ]
    graph = build_graph(nodes, {"x": f(4, 2)}, ["y"], 21, {"scale": ONE})
    compare_with_onnxruntime(graph, {"x": f(4, 2)})


def test_eight_bit_floats_are_refused(build_graph: Callable[..., Any]) -> None:
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale"], ["q"], output_dtype=TensorProto.FLOAT8E4M3FN),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    graph = build_graph(nodes, {"x": X}, ["y"], 21, {"scale": ONE})
    with pytest.raises(UnsupportedOperator, match="float8e4m3fn"):
        TorchGraph(graph)


def test_attention_with_a_cache_is_refused(build_node: Callable[..., Any]) -> None:
    graph, _ = build_node("Attention", 23, [HEADS, HEADS, HEADS, None, HEADS, HEADS], {}, 3)
    with pytest.raises(UnsupportedOperator, match="a key and value cache"):
        TorchGraph(graph)
