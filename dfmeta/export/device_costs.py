"""What a graph costs on a device: parameters, multiply-accumulates, bytes in flash, bytes in RAM."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from dfmeta.export import arena
from dfmeta.export._storage import stored_bytes
from dfmeta.graph import Graph, costs
from dfmeta.graph.parameters import weight_names

# Position of weight and bias in the operators on integers.
_INTEGER_WEIGHTS = {"QLinearConv": (3, 8), "QLinearMatMul": (3,), "ConvInteger": (1,), "MatMulInteger": (1,)}
_INT32 = 4


@dataclass(frozen=True, slots=True)
class DeviceCosts:
    """Costs of one graph on a device, for one item.

    Attributes:
        parameters: elements of weights and biases, quantized or not.
        macs: multiply-accumulates of convolutions and matrix products.
        constant_bytes: of all constants: weights, biases, scales and zero points.
        code_bytes: of the program that computes it, as predicted; None where nothing predicts it.
        flash_bytes: of constants, and of code where it is predicted.
        arena_bytes: of the arena that holds inputs, outputs and everything in between.
        live_bytes: least that any arena needs.
        temporaries_bytes: everything in between in places of its own (:class:`dfmeta.export.arena.Plan`).
        file_bytes: size of the ONNX file.
    """

    parameters: int
    macs: int
    constant_bytes: int
    code_bytes: int | None
    flash_bytes: int
    arena_bytes: int
    live_bytes: int
    temporaries_bytes: int
    file_bytes: int


def device_costs(
    graph: Graph, plan: arena.Plan | None = None, *, as_int8: bool = False, code_bytes: int | None = None
) -> DeviceCosts:
    """Costs of a graph.

    Args:
        graph: with known sizes, but for free axes of its inputs, which count as 1.
        plan: of its arena, if it is there already.
        as_int8: count a float model as its target will make it: weights and values of one byte, biases of four.
        code_bytes: what a target predicts of the program.

    Raises:
        GraphError: a value of unknown shape.
    """
    plan = plan or arena.plan(graph, element_bytes=1 if as_int8 else None)
    counted = costs(graph)
    constants = _int8_bytes(graph) if as_int8 else constant_bytes(graph)
    return DeviceCosts(
        parameters=parameters(graph),
        macs=counted.macs,
        constant_bytes=constants,
        code_bytes=code_bytes,
        flash_bytes=constants + (code_bytes or 0),
        arena_bytes=plan.peak_bytes,
        live_bytes=plan.live_bytes,
        temporaries_bytes=plan.temporaries_bytes,
        file_bytes=counted.bytes,
    )


def constant_bytes(graph: Graph) -> int:
    """Bytes of all initializers, elements of less than 8 bits packed."""
    return sum(stored_bytes(math.prod(one.dims), graph.dtype(one.name)) for one in graph.model.graph.initializer)


def parameters(graph: Graph) -> int:
    """Elements of all weights and biases: those that training may change, and the integers that stand for such."""
    names = _parameter_names(graph)
    return sum(math.prod(one.dims) for one in graph.model.graph.initializer if one.name in names)


def _parameter_names(graph: Graph) -> set[str]:
    """As if each DequantizeLinear of a constant were that constant in floating point."""
    proto = graph.model.graph
    constants = {one.name: one for one in proto.initializer}
    plain = onnx.GraphProto()
    origin = {}
    integer = set()
    for node in proto.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            origin[node.output[0]] = node.input[0]
        else:
            plain.node.append(node)
        places = _INTEGER_WEIGHTS.get(node.op_type, ())
        integer |= {node.input[at] for at in places if at < len(node.input) and node.input[at] in constants}
    for name, source in (*((one, one) for one in graph.weights), *origin.items()):
        plain.initializer.add(name=name, dims=constants[source].dims, data_type=onnx.TensorProto.FLOAT)
    return {origin.get(name, name) for name in weight_names(plain)} | integer


def _int8_bytes(graph: Graph) -> int:
    """Matrices and filters of one byte for each element, with a scale for each output; the rest of four bytes."""
    total = 0
    axes = _output_axes(graph)
    for one in graph.model.graph.initializer:
        if one.name not in graph.weights:
            continue
        elements = math.prod(one.dims)
        total += elements + _INT32 * one.dims[axes.get(one.name, 0)] if len(one.dims) > 1 else _INT32 * elements
    return total


def _output_axes(graph: Graph) -> dict[str, int]:
    """Weights whose outputs are not their first axis, and the axis that is."""
    found = {}
    for node in graph.model.graph.node:
        if node.op_type in ("ConvTranspose", "MatMul"):
            found[node.input[1]] = 1 if node.op_type == "ConvTranspose" else -1
        elif node.op_type == "Gemm" and not any(one.name == "transB" and one.i for one in node.attribute):
            found[node.input[1]] = 1
    return found
