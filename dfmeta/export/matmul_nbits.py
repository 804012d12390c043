"""Matrix products with 4-bit weights as onnxruntime's own operator ``MatMulNBits``, in domain ``com.microsoft``.

Columns of the weight are cut into blocks of 32 features, each with a scale; here all blocks of a column have the same
one. Codes are stored without a sign, 8 standing for 0, two to a byte, the first in the low half (onnxruntime's
``ContribOperators.md``).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dfmeta.errors import ExportError
from dfmeta.export.quantized import QuantizedModel, QuantizedWeight, quantized_graph
from dfmeta.graph import Graph, metadata
from dfmeta.graph.canonical import drop_unused
from dfmeta.graph.folding import free_name

DOMAIN = "com.microsoft"
_BLOCK = 32
_ZERO = 8


def matmul_nbits_model(model: QuantizedModel, properties: Mapping[str, str], *, int4: bool = True) -> bytes:
    """The model for onnxruntime, its matrix products with weights of at most 4 bits in one operator each.

    All else is as :func:`dfmeta.export.quantized.quantized_graph` writes it. No other runtime reads the file, nor do
    we: the graph that is returned by that function computes the same.

    Args:
        model: what to write.
        properties: metadata of the file.
        int4: store codes of other operators with at most 4 bits as INT4; else in INT8.

    Raises:
        ExportError: no such matrix product.
    """
    graph = quantized_graph(model, int4=int4)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.model)
    weights = {f"{weight.tensor}_dequantized": weight for weight in model.weights if weight.bits <= 4}
    taken = set(graph.values)
    replaced = _products(proto.graph, weights)
    if not replaced:
        raise ExportError(
            graph.where, "no matrix product with a weight of at most 4 bits", "at least one", "Ask for form qdq."
        )
    for node in replaced:
        _replace(proto.graph, node, weights[node.input[1]], taken)
    drop_unused(proto.graph)
    del proto.graph.value_info[:]
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    metadata.set_properties(proto, properties)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def stored_bytes(graph: Graph, model: QuantizedModel) -> dict[str, int]:
    """Bytes of the codes and scales of each weight that :func:`matmul_nbits_model` writes as this operator takes it.

    Args:
        graph: the same model as :func:`dfmeta.export.quantized.quantized_graph` writes it.
        model: what it writes.
    """
    weights = {f"{weight.tensor}_dequantized": weight for weight in model.weights if weight.bits <= 4}
    found = {}
    for node in _products(graph.model.graph, weights):
        weight = weights[node.input[1]]
        blocks = weight.scales.size * -(-(weight.codes.size // weight.scales.size) // _BLOCK)
        found[weight.tensor] = blocks * (_BLOCK // 2 + 4)
    return found


def _products(graph: onnx.GraphProto, weights: Mapping[str, QuantizedWeight]) -> list[onnx.NodeProto]:
    return [node for node in graph.node if _fits(node, weights)]


def _fits(node: onnx.NodeProto, weights: Mapping[str, QuantizedWeight]) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return False
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return weights[node.input[1]].codes.ndim == 2 and not settings.get("transA", 0)


def packed(codes: NDArray[np.int8], block: int = _BLOCK) -> NDArray[np.uint8]:
    """Codes of a column in blocks, two to a byte.

    Args:
        codes: ``[n, k]``, -8 to 7.
        block: features in a block, even.

    Returns:
        ``[n, ceil(k / block), block / 2]`` uint8; what is beyond k stands for 0.
    """
    outputs, features = codes.shape
    blocks = -(-features // block)
    whole = np.full((outputs, blocks * block), _ZERO, np.uint8)
    whole[:, :features] = (codes.astype(np.int16) + _ZERO).astype(np.uint8)
    found: NDArray[np.uint8] = whole[:, 0::2] | (whole[:, 1::2] << 4)
    return found.reshape(outputs, blocks, block // 2)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, weight: QuantizedWeight, taken: set[str]) -> None:
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    # [n, k]: a row for each output.
    codes = weight.codes if settings.get("transB", 0) else weight.codes.T
    blocks = -(-codes.shape[1] // _BLOCK)
    scales = np.repeat(weight.scales * np.float32(settings.get("alpha", 1.0)), blocks)
    names = []
    for suffix, array in (("blocks", packed(codes)), ("block_scales", scales.astype(np.float32))):
        name = free_name(f"{weight.tensor}_{suffix}", taken)
        taken.add(name)
        graph.initializer.append(numpy_helper.from_array(array, name))
        names.append(name)
    bias = node.input[2] if len(node.input) > 2 else ""
    result = node.output[0]
    product = free_name(f"{result}_product", taken) if bias else result
    taken.add(product)
    made = helper.make_node(
        "MatMulNBits",
        [node.input[0], *names],
        [product],
        name=node.name,
        domain=DOMAIN,
        K=codes.shape[1],
        N=codes.shape[0],
        bits=4,
        block_size=_BLOCK,
    )
    place = list(graph.node).index(node)
    if bias:
        added = _bias(graph, bias, float(settings.get("beta", 1.0)), taken)
        graph.node.insert(place + 1, helper.make_node("Add", [product, added], [result]))
    graph.node[place].CopyFrom(made)


def _bias(graph: onnx.GraphProto, name: str, beta: float, taken: set[str]) -> str:
    if beta == 1:
        return name
    array = next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == name)
    scaled = free_name(f"{name}_scaled", taken)
    taken.add(scaled)
    graph.initializer.append(numpy_helper.from_array((array * np.float32(beta)).astype(np.float32), scaled))
    return scaled
