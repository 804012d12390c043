"""Weights that learn and stay what they are: integers on their grid, or zero where they are zero.

A quantized weight is its codes times its scales. In training a float number stands behind each code; what the network
computes with is that number rounded to the grid, and the gradient goes straight through the rounding to the number
behind it, as long as that is inside the grid's range (Bengio et al., "Estimating or propagating gradients through
stochastic neurons", arXiv:1308.3432; Jacob et al., arXiv:1712.05877, sec. 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dfmeta.errors import StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.graph.canonical import drop_unused
from dfmeta.graph.learning import with_values
from dfmeta.numerics.gptq import code_range

_CODES = frozenset({"int8", "int4"})
_REACH = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A weight that DequantizeLinear makes.

    Attributes:
        made: name of what the operators read.
        codes: name of the initializer with the codes.
        steps: float32 scales, broadcastable to the weight.
        bits: the fewest whose range holds the codes; ONNX stores 2 and 3 bits as 4.
    """

    made: str
    codes: str
    steps: NDArray[np.float32]
    bits: int


class OnGrid(nn.Module):
    """A parametrization: numbers to the nearest point of a grid, with the gradient straight through.

    The numbers behind the codes are scaled so that the grid reaches from -0.2 to 0.2, whatever its bits and scales: one
    learning rate then suits all grids, and what learns beside them. Codes that were well chosen are moved slowly.
    """

    steps: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.register_buffer("steps", torch.from_numpy(np.array(grid.steps)))
        self._range = code_range(grid.bits)
        self._unit = _REACH / (1 << (grid.bits - 1))

    def codes(self, behind: Tensor) -> Tensor:
        """The integers, as floating numbers; half to even, as QuantizeLinear rounds."""
        inside = (behind / self._unit).clamp(*self._range)
        return inside + (inside.round() - inside).detach()

    def forward(self, behind: Tensor) -> Tensor:
        """What the codes stand for, as DequantizeLinear computes it."""
        return self.codes(behind) * self.steps

    def right_inverse(self, values: Tensor) -> Tensor:
        """Numbers behind values of the grid."""
        return values / self.steps * self._unit


class ZerosStay(nn.Module):
    """A parametrization: numbers that are zero stay so."""

    kept: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", (values != 0).to(values.dtype))

    def forward(self, behind: Tensor) -> Tensor:
        """The numbers with those zeros."""
        return behind * self.kept


def grids(graph: Graph) -> tuple[Grid, ...]:
    """The quantized weights of a graph: INT8 or INT4 codes with zero points of 0, one scale a channel or for all.

    Raises:
        StepError: codes by blocks, or around another zero.
    """
    found = []
    for node in graph.model.graph.node:
        if node.op_type != "DequantizeLinear" or graph.dtype(node.input[0]) not in _CODES:
            continue
        if node.input[0] not in graph.initializers or node.input[1] not in graph.initializers:
            continue
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        offset = graph.initializers.get(node.input[2]) if len(node.input) > 2 else None
        if attributes.get("block_size") or (offset is not None and offset.astype(np.int64).any()):
            raise StepError(
                f"{graph.where}: weight {node.input[0]!r}",
                "codes by blocks, or around a zero point",
                "a scale for each channel, and zero points of 0",
                "Fine-tune before quantizing, or quantize with this project.",
            )
        codes = graph.initializers[node.input[0]].astype(np.int64)
        scales = np.asarray(graph.initializers[node.input[1]], np.float32)
        shape = [1] * codes.ndim
        if scales.size > 1:
            shape[attributes.get("axis", 1)] = -1
        found.append(Grid(node.output[0], node.input[0], scales.reshape(shape), _bits(codes)))
    return tuple(found)


def _bits(codes: NDArray[np.int64]) -> int:
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    for bits in range(2, 8):
        least, most = code_range(bits)
        if least <= low and high <= most:
            return bits
    return 8


def in_floats(graph: Graph, found: tuple[Grid, ...]) -> Graph:
    """The graph with each quantized weight as an initializer of numbers, under the name that operators read."""
    if not found:
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for grid in found:
        values = graph.initializers[grid.codes].astype(np.float32) * grid.steps
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), grid.made))
    made = {grid.made for grid in found}
    nodes = [node.SerializeToString() for node in model.graph.node if made.isdisjoint(node.output)]
    del model.graph.node[:]
    model.graph.node.extend([onnx.NodeProto.FromString(node) for node in nodes])
    drop_unused(model.graph)
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


class Learning:
    """A graph in training, its weights held to what they are.

    Args:
        graph: in floating point, pruned, factorised or quantized. BatchNormalization keeps its statistics: those of
            synthetic inputs are not the data's.

    Attributes:
        module: the graph as a torch module; its parameters are what is trained.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._grids = graph, grids(graph)
        self.module = TorchGraph(in_floats(graph, self._grids), trainable=True)
        slots = {id(tensor): slot for slot, tensor in self.module.named_parameters()}
        self._slots = {name: slots[id(held)] for name, held in self.module.named_initializers() if id(held) in slots}
        on_grid = {grid.made: grid for grid in self._grids}
        for name, tensor in list(self.module.named_initializers()):
            if name in on_grid and name in self._slots:
                parametrize.register_parametrization(self.module, self._slots[name], OnGrid(on_grid[name]))
            elif name in self._slots and tensor.dim() > 1 and bool((tensor == 0).any()):
                parametrize.register_parametrization(self.module, self._slots[name], ZerosStay(tensor.detach()))

    @torch.no_grad()
    def graph(self) -> Graph:
        """The graph that was given with the present weights; codes are those that a forward pass now computes with."""
        of = {grid.made: grid for grid in self._grids if grid.made in self._slots}
        numbers = {
            name: tensor.contiguous()
            for name, tensor in self.module.named_initializers()
            if name in self._slots and name not in of
        }
        return with_values(self._graph, {**numbers, **{grid.codes: self._codes(name) for name, grid in of.items()}})

    def _codes(self, name: str) -> NDArray[np.int64]:
        held: Any = self.module.parametrizations
        held = held[self._slots[name]]
        found: NDArray[np.int64] = held[0].codes(held.original).cpu().numpy().astype(np.int64)
        return found
