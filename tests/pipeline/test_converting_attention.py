"""Ranges of a graph of matrix products, through the quantiser that reads them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.calibrate import load_tensors_data

from dfmeta.compress.quantize import Config
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import record
from dfmeta.pipeline.converting import Converted, convert_to

make = helper.make_node
TOKENS = np.random.default_rng(2).standard_normal((1500, 5, 12)).astype(np.float32) @ (
    np.random.default_rng(3).standard_normal((12, 12)).astype(np.float32) / 3
)
WEIGHTS = {"wq": (12, 12), "wk": (12, 12), "wv": (12, 12), "wo": (12, 12), "up": (12, 20), "head": (20, 4)}


def attention(names: bool) -> Graph:
    """One head of attention over ``x [n, 5, 12]`` and a classifier of the tokens' mean; products of values as well."""
    nodes = [
        make("MatMul", ["x", "wq"], ["q0"], "query"),
        make("Add", ["q0", "bq"], ["q"], "bias"),
        make("MatMul", ["x", "wk"], ["k"], "key"),
        make("MatMul", ["x", "wv"], ["v"], "value"),
        make("Transpose", ["k"], ["kt"], "turned", perm=[0, 2, 1]),
        make("MatMul", ["q", "kt"], ["scores"], "scores" if names else ""),
        make("Softmax", ["scores"], ["shares"], "shares" if names else "", axis=-1),
        make("MatMul", ["shares", "v"], ["mixed"], "mixed" if names else ""),
        make("MatMul", ["mixed", "wo"], ["o"], "out"),
        make("Add", ["o", "x"], ["sum"], "skip"),
        make("ReduceMean", ["sum"], ["mean"], "pool", axes=[1], keepdims=0),
        make("Gemm", ["mean", "up", "ub"], ["u"], "up"),
        make("Relu", ["u"], ["r"], "relu"),
        make("MatMul", ["r", "head"], ["y"], "head"),
    ]
    generator = np.random.default_rng(0)
    arrays = {name: generator.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in WEIGHTS.items()}
    arrays |= {"bq": generator.standard_normal(12), "ub": generator.standard_normal(20) + 1}
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return Graph.from_bytes(model.SerializeToString(), "attention.onnx")


@pytest.fixture(scope="module", params=[True, False], ids=["named", "unnamed"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Converted]:
    """A graph, and the ranges that its records give."""
    folder = tmp_path_factory.mktemp("attention")
    np.savez(folder / "tokens.npz", x=TOKENS)
    graph = attention(request.param)
    bundle = record(graph, str(folder / "tokens.npz"), folder / "bundle", presets=("calibration",), by_class=False).path
    return graph, convert_to(bundle, folder / "ranges.json", "ort-calibration", config=Config(ranges="minmax"))


def quantized(case: tuple[Graph, Converted], folder: Path, exclude: Sequence[str]) -> Path:
    graph, done = case
    (folder / "model.onnx").write_bytes(graph.raw)
    told = {"calibration_cache_path": done.path, "nodes_to_exclude": list(exclude)}
    logging.disable(logging.WARNING)
    try:
        quantize_static(folder / "model.onnx", folder / "q.onnx", None, weight_type=QuantType.QInt8, **told)
    finally:
        logging.disable(logging.NOTSET)
    return folder / "q.onnx"


def test_it_quantizes_what_has_a_range(case: tuple[Graph, Converted], tmp_path: Path) -> None:
    graph, done = case
    path = quantized(case, tmp_path, done.exclude)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": TOKENS})
    expected = OrtGraph(graph, threads=1).run({"x": TOKENS})["y"]
    assert np.square(found - expected).mean() < 0.05 * expected.var()
    rounded = {node.input[0] for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"}
    assert {"x", "q0", "k", "v", "mixed"} <= rounded
    assert "scores" not in rounded


def test_what_it_must_leave_alone_is_said(case: tuple[Graph, Converted], tmp_path: Path) -> None:
    graph, done = case
    named = next(node.name for node in graph.model.graph.node if "scores" in node.output)
    assert [one.name for one in done.left_out] == ["scores"]
    assert done.exclude == (("scores", "shares") if named else ("",))
    (note,) = [note for note in done.notes if "nodes_to_exclude" in note]
    assert f"nodes_to_exclude={list(done.exclude)}" in note
    assert ("without a name" in note) == (not named)
    with pytest.raises(ValueError, match="not specified for param scores"):
        quantized(case, tmp_path, ())


def test_a_product_is_known_without_its_bias_and_with_it(case: tuple[Graph, Converted]) -> None:
    """As if normal: near the values themselves, which nearly are."""
    graph, done = case
    assert "ranges from second moments, as if normal: q0" in done.notes
    values = OrtGraph(graph, ["q0"], threads=1).run({"x": TOKENS})
    low, high = (float(np.asarray(end).item()) for end in load_tensors_data(done.path)["q0"].range_value)
    assert 0.6 * values["q0"].min() >= low >= 2 * values["q0"].min()
    assert 0.6 * values["q0"].max() <= high <= 2 * values["q0"].max()
