"""Quantized files as their users open them: onnxruntime with the optimisations that are its default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfmeta.compress.quantize import Config
from dfmeta.errors import ExportError
from dfmeta.graph import Graph
from dfmeta.pipeline import record
from dfmeta.pipeline.closed_form import open_source, require_same
from dfmeta.pipeline.quantizing import Form, quantize


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of matrix products, one of which nothing is added to, recorded."""
    folder = tmp_path_factory.mktemp("product")
    rng = np.random.default_rng(0)
    weights = {"first": rng.standard_normal((40, 33)), "second": rng.standard_normal((33, 5))}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["bare"], "bare"),
        helper.make_node("Relu", ["bare"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["y"], "last"),
    ]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 40), ("y", 5))]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    x = np.maximum(rng.standard_normal((300, 40)) + 0.3, 0).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    out = folder / "bundle"
    teacher = Graph.from_bytes(model.SerializeToString(), "product.onnx")
    record(teacher, str(folder / "x.npz"), out, presets=("calibration",), by_class=False)
    return out


def outputs(path: Path, x: np.ndarray, level: onnxruntime.GraphOptimizationLevel | None = None) -> np.ndarray:
    """What a session says; with onnxruntime's default options unless there is a level."""
    options = onnxruntime.SessionOptions()
    if level is not None:
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def opsets(path: Path) -> tuple[int, int, set[int]]:
    """Opset, IR, and the types of all initializers."""
    model = onnx.load(path)
    return model.opset_import[0].version, model.ir_version, {one.data_type for one in model.graph.initializer}


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse", "entropy"])
def test_values_of_four_bits_open_by_default(ranges: str, calibrated: Path, tmp_path: Path) -> None:
    out = quantize(calibrated, tmp_path / "m.onnx", config=Config("w4a4", ranges=ranges)).written.path
    assert "MaxPool" in {node.op_type for node in onnx.load(out).graph.node}
    x = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    plain = outputs(out, x, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    np.testing.assert_allclose(outputs(out, x), plain, atol=0.05 * float(np.abs(plain).max()))


def test_values_of_four_bits_take_sixteen_steps(calibrated: Path, tmp_path: Path) -> None:
    out = quantize(calibrated, tmp_path / "m.onnx", config=Config("w8a4", first_last_bits=0)).written.path
    model = onnx.load(out)
    clips = [node for node in model.graph.node if node.op_type == "Clip"]
    assert clips
    for node in clips:
        model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = 3 * np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32)
    for integers in session.run([node.output[0] for node in clips], {"image": x}):
        assert integers.dtype == np.uint8
        assert (integers.min(), integers.max()) == (0, 15)


@pytest.mark.parametrize(("bits", "form"), [("w4a4", "qdq"), ("w4", "qdq"), ("w4a8", "matmulnbits")])
def test_without_int4_no_type_of_it_is_left(bits: str, form: Form, calibrated: Path, tmp_path: Path) -> None:
    quantize(calibrated, tmp_path / "new.onnx", config=Config(bits, first_last_bits=0), form=form)
    quantize(calibrated, tmp_path / "old.onnx", config=Config(bits, first_last_bits=0, int4=False), form=form)
    assert opsets(tmp_path / "new.onnx")[:2] == (21, 10)
    opset, ir_version, types = opsets(tmp_path / "old.onnx")
    assert (opset, ir_version) == (18, 8)
    assert types.isdisjoint({TensorProto.INT4, TensorProto.UINT4})
    x = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)
    # Between codes in INT8 and values in 8 bits a bias is an INT32, which rounds it.
    expected = outputs(tmp_path / "new.onnx", x)
    np.testing.assert_allclose(outputs(tmp_path / "old.onnx", x), expected, atol=0.01 * float(np.abs(expected).max()))


def test_bytes_of_blocks_are_those_in_the_file(product: Path, tmp_path: Path) -> None:
    done = quantize(product, tmp_path / "m.onnx", config=Config("w4", first_last_bits=0), form="matmulnbits")
    arrays = [tensor for tensor in onnx.load(done.written.path).graph.initializer if "_block" in tensor.name]
    stored = sum(numpy_helper.to_array(tensor).nbytes for tensor in arrays)
    assert len(arrays) == 4
    assert done.weight_bytes == stored == 33 * 2 * 20 + 5 * 2 * 20
    assert done.written.costs.bytes == done.written.bytes == done.written.path.stat().st_size


def test_bytes_of_another_function_are_refused(product: Path, tmp_path: Path) -> None:
    source = open_source(product, tmp_path / "m")
    quantize(product, tmp_path / "m.onnx", config=Config("w4", first_last_bits=0), form="matmulnbits")
    good = (tmp_path / "m.onnx").read_bytes()
    require_same(source.graph, source, 0.5, good)
    model = onnx.ModelProto.FromString(good)
    scales = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("block_scales"))
    scales.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(scales), scales.name))
    with pytest.raises(ExportError, match="as written: found a difference"):
        require_same(source.graph, source, 0.5, model.SerializeToString())


def test_a_product_that_nothing_was_added_to_has_an_integer_form(product: Path, tmp_path: Path) -> None:
    done = quantize(product, tmp_path / "m.onnx", config=Config("w8a8"), form="qoperator")
    assert any(layer.bias_corrected for layer in done.layers)
    operators = [node.op_type for node in onnx.load(done.written.path).graph.node]
    assert operators.count("QLinearMatMul") == 2
    x = np.load(product.parent / "x.npz")["x"]
    expected = outputs(product / "model.onnx", x)
    assert np.mean(outputs(done.written.path, x).argmax(1) == expected.argmax(1)) > 0.97
