"""Names that lead back to the module: of nodes, and of tensors that folding has renamed.

They are for people. A name proves nothing about a tensor; its digest does.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from dfmeta.graph.canonical import rename_value

# The exporter writes the path of modules that a node came from, outermost first, its own name last.
_SCOPES = "pkg.torch.onnx.name_scopes"
# Fewer elements than this prove no identity: many tensors hold the same two numbers.
_TELLING = 4


def name_nodes(graph: onnx.GraphProto, module: nn.Module) -> None:
    """Name each node after the module that it came from, as long as the exporter's notes are there to tell.

    The owner of its weight comes first. A node of a module with parts is named after its operator inside that
    module: ``layer1.0.add``.
    """
    leaves = {name for name, part in module.named_modules() if name and not any(part.children())}
    taken: Counter[str] = Counter()
    for node in graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
        path = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
        owners = [name.rpartition(".")[0] for name in node.input[1:2]]
        name = next((name for name in (*owners, *path[-1:]) if name in leaves), "")
        name = name or ".".join([*path[-1:], node.op_type.lower()])
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1


def name_by_value(graph: onnx.GraphProto, state: Mapping[str, np.ndarray]) -> None:
    """Give a folded tensor its state-dict name again; a transposed matrix has ``.T`` after it."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, array in state.items():
        names.setdefault(_digest(array), []).append(name)
        if array.ndim == 2:
            names.setdefault(_digest(array.T), []).append(f"{name}.T")
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        known = names.get(_digest(array), [])
        if tensor.name in state or array.size < _TELLING or len(known) != 1 or known[0] in taken:
            continue
        rename_value(graph, tensor.name, known[0])
        taken.add(known[0])


def _digest(array: np.ndarray) -> tuple[object, ...]:
    return array.shape, array.dtype.str, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
