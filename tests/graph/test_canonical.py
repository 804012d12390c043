"""The canonical form: each rewrite by itself, and the two laws: nothing changes in value, twice is once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, OrtGraph, metadata
from dfmeta.graph.canonical import canonicalise

SHAPE = (2, 4, 3, 3)


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: tuple[int | str, ...] = SHAPE,
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    described = onnx.shape_inference.infer_shapes(model)
    model.graph.ClearField("output")
    model.graph.output.extend(described.graph.output)
    return model


def canonical(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    canonicalise(copy, 18, keep, "here")
    return copy


def node(operator: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def run(model: onnx.ModelProto, shape: tuple[int, ...] = SHAPE) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return OrtGraph(Graph.from_bytes(model.SerializeToString(), "here"), threads=1).run({"x": x})


def operators(model: onnx.ModelProto) -> list[str]:
    return [item.op_type for item in model.graph.node]


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_constants_become_initializers() -> None:
    model = model_of(
        [
            node("Constant", "", "a", value_float=2.0),
            node("Constant", "", "b", value=numpy_helper.from_array(np.ones((4, 1, 1), np.float32))),
            node("Constant", "", "s", value_ints=[2, 36]),
            node("Mul", "x a", "m"),
            node("Add", "m b", "n"),
            node("Reshape", "n s"),
        ]
    )
    result = canonical(model)
    assert operators(result) == ["Mul", "Add", "Flatten"]
    assert {tensor.name for tensor in result.graph.initializer} == {"a", "b"}


def test_a_chain_that_passes_through_vanishes_and_the_output_keeps_its_name() -> None:
    result = canonical(
        model_of(
            [
                node("Relu", "x", "a"),
                node("Identity", "a", "b"),
                node("Dropout", "b", "c"),
                node("Identity", "c"),
            ]
        )
    )
    assert [(list(item.input), list(item.output)) for item in result.graph.node] == [(["x"], ["y"])]


def test_one_value_may_be_two_outputs() -> None:
    model = model_of([node("Relu", "x", "y"), node("Identity", "y", "z")], outputs=("y", "z"))
    assert operators(canonical(model)) == ["Relu", "Identity"]
    assert operators(canonical(model_of([node("Identity", "x")]))) == ["Identity"]


@pytest.mark.parametrize(("axes", "keepdims", "expected"), [
    ((2, 3), 0, ["GlobalAveragePool", "Flatten"]),
    ((-1, -2), 0, ["GlobalAveragePool", "Flatten"]),
    ((2, 3), 1, ["GlobalAveragePool"]),
    ((1, 2), 1, ["ReduceMean"]),
    ((3,), 0, ["ReduceMean"]),
])  # fmt: skip
def test_a_mean_over_the_image_is_a_pool(axes: tuple[int, ...], keepdims: int, expected: list[str]) -> None:
    model = model_of([node("ReduceMean", "x axes", keepdims=keepdims)], {"axes": ints(*axes)})
    result = canonical(model)
    assert operators(result) == expected
    np.testing.assert_allclose(run(result)["y"], run(model)["y"], rtol=1e-6)


def test_a_shape_computed_while_running_becomes_constant() -> None:
    model = model_of(
        [
            node("Shape", "x", "n", start=0, end=1),
            node("Concat", "n rest", "s", axis=0),
            node("Reshape", "x s", allowzero=1),
        ],
        {"rest": ints(2, 18)},
        ("batch", 4, 3, 3),
    )
    model.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.INT64, [3]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 18]))
    result = canonical(model)
    assert operators(result) == ["Reshape"]
    assert not result.graph.node[0].attribute
    np.testing.assert_array_equal(numpy_helper.to_array(result.graph.initializer[0]), [-1, 2, 18])
    np.testing.assert_array_equal(run(result)["y"], run(model)["y"])


def test_allowzero_stays_where_it_says_something() -> None:
    model = model_of([node("Reshape", "x s", allowzero=1)], {"s": ints(0, 5)}, (0, 4, 3, 3))
    assert [attribute.name for attribute in canonical(model).graph.node[0].attribute] == ["allowzero"]


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
def test_a_scale_of_one_element_is_a_scalar(shape: tuple[int, ...]) -> None:
    constant = {"scale": np.full(shape, 2, np.float32)}
    model = model_of([node("Mul", "scale x", "a"), node("Div", "a scale")], constant)
    result = canonical(model)
    assert [(tensor.name, tuple(tensor.dims)) for tensor in result.graph.initializer] == [("scale", ())]
    np.testing.assert_array_equal(run(result)["y"], run(model)["y"])
    kept = canonical(model, keep=frozenset({"scale"}))
    assert tuple(kept.graph.initializer[0].dims) == shape


def test_a_scale_that_adds_axes_stays() -> None:
    model = model_of([node("Mul", "scale x")], {"scale": np.full((1,) * 5, 2, np.float32)})
    assert canonical(model).graph.initializer == model.graph.initializer


def test_a_dropout_whose_mask_is_read_or_that_is_on_stays() -> None:
    masked = helper.make_node("Dropout", ["x"], ["a", "mask"])
    assert operators(canonical(model_of([masked, node("Where", "mask a x")]))) == ["Dropout", "Where"]
    switched = model_of([node("Dropout", "x ratio on")], {"ratio": np.array(0.5, np.float32), "on": np.array(True)})
    assert operators(canonical(switched)) == ["Dropout"]


@pytest.mark.parametrize(("to", "expected"), [(np.float32, ["Add"]), (np.float16, ["Cast", "Cast", "Add"])])
def test_a_cast_to_a_known_type_is_written_so(to: type, expected: list[str]) -> None:
    nodes = [node("CastLike", "x like", "a"), node("CastLike", "a x", "b"), node("Add", "x b")]
    result = canonical(model_of(nodes, {"like": np.zeros(1, to)}))
    assert operators(result) == expected


def test_a_made_up_bias_of_zeros_goes_and_a_kept_one_stays() -> None:
    weight = {"w": np.ones((2, 4, 1, 1), np.float32), "b": np.zeros(2, np.float32)}
    model = model_of([node("Conv", "x w b")], weight)
    assert list(canonical(model).graph.node[0].input) == ["x", "w"]
    assert list(canonical(model, keep=frozenset({"b"})).graph.node[0].input) == ["x", "w", "b"]


def test_attributes_that_say_nothing_go_and_axis_stays() -> None:
    plain = {"dilations": [1, 1], "ceil_mode": 0, "storage_order": 0, "auto_pad": "NOTSET"}
    pool = node("MaxPool", "x", "a", kernel_shape=[2, 2], strides=[1, 1], **plain)
    result = canonical(model_of([pool, node("Softmax", "a", axis=-1)]))
    assert [[a.name for a in item.attribute] for item in result.graph.node] == [
        ["kernel_shape", "strides"],
        ["axis"],
    ]


def test_dilations_that_say_something_stay() -> None:
    pool = node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 1])
    assert {a.name for a in canonical(model_of([pool])).graph.node[0].attribute} == {
        "kernel_shape",
        "dilations",
    }


def test_no_name_looks_like_a_path() -> None:
    model = model_of(
        [node("Relu", "x", "/home/a"), node("Add", "/home/a s/c")],
        {"s/c": np.ones(4, np.float32)[:, None, None]},
    )
    names = {name for item in canonical(model).graph.node for name in (*item.input, *item.output)}
    assert names == {"x", "_home_a", "s_c", "y"}


def test_a_contradiction_is_refused() -> None:
    model = model_of([node("Relu", "x")])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [7]))
    with pytest.raises(GraphError, match="here: found shapes that do not fit"):
        canonical(model)


def test_metadata_is_stripped_everywhere_but_names() -> None:
    model = model_of([node("Relu", "x")], {"w": np.ones(1, np.float32)})
    model.producer_version, model.domain, model.model_version = "2.0 /home", "org", 3
    texts = (model, model.graph, model.graph.node[0], model.graph.initializer[0], model.graph.input[0])
    for place in texts:
        place.doc_string = "/home/somebody"
        place.metadata_props.add(key="k", value="/home/somebody")
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0, doc_string="/home/somebody"))
    metadata.strip(model)
    assert b"home" not in model.SerializeToString()
    assert (model.producer_name, model.graph.node[0].op_type) == ("dfmeta", "Relu")


STEPS: dict[str, Callable[[str, str, int], list[onnx.NodeProto]]] = {
    "relu": lambda a, b, i: [node("Relu", a, b)],
    "identity": lambda a, b, i: [node("Identity", a, b)],
    "dropout": lambda a, b, i: [node("Dropout", a, b)],
    "scale": lambda a, b, i: [node("Mul", f"{a} one", b)],
    "shift": lambda a, b, i: [node("Sub", f"one3 {a}", b)],
    "conv": lambda a, b, i: [node("Conv", f"{a} w zero", b, dilations=[1, 1], group=1)],
    "mean": lambda a, b, i: [
        node("ReduceMean", f"{a} plane", f"m{i}", keepdims=1),
        node("Add", f"{a} m{i}", b),
    ],
    "cast": lambda a, b, i: [node("CastLike", f"{a} half", f"h{i}"), node("CastLike", f"h{i} one", b)],
    "view": lambda a, b, i: [
        node("Constant", "", f"c{i}", value_ints=[2, -1]),
        node("Reshape", f"{a} c{i}", f"v{i}", allowzero=1),
        node("Reshape", f"v{i} full", b),
    ],
    "pool": lambda a, b, i: [node("MaxPool", a, b, kernel_shape=[1, 1], strides=[1, 1], ceil_mode=0)],
}
CONSTANTS: dict[str, np.ndarray] = {
    "one": np.full((1,), 1.5, np.float32),
    "one3": np.full((1, 1, 1), 0.5, np.float32),
    "half": np.zeros(1, np.float16),
    "plane": ints(-1, 2),
    "full": ints(*SHAPE),
    "w": np.random.default_rng(1).normal(size=(4, 4, 1, 1)).astype(np.float32),
    "zero": np.zeros(4, np.float32),
}


@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7))
@settings(max_examples=40, deadline=None)
def test_values_stay_and_twice_is_once(steps: list[str]) -> None:
    nodes: list[onnx.NodeProto] = []
    for index, step in enumerate(steps):
        source = "x" if index == 0 else f"t{index - 1}"
        nodes += STEPS[step](source, "y" if index == len(steps) - 1 else f"t{index}", index)
    model = model_of(nodes, CONSTANTS)
    result = canonical(model)
    np.testing.assert_allclose(run(result)["y"], run(model)["y"], rtol=2e-3, atol=2e-3)
    assert canonical(result) == result
    assert not {"Constant", "CastLike", "Dropout"} & set(operators(result))
