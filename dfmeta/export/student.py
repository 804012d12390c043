"""A trained student as one file that a device can hold, and that still says where it came from."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import onnx
import onnxscript.rewriter
import torch
from onnx import version_converter
from torch import nn

from dfmeta.errors import ExportError, GraphError
from dfmeta.graph import Graph, TorchGraph, free_batch, metadata
from dfmeta.graph.canonical import canonicalise, rename
from dfmeta.graph.carriers import CARRIERS
from dfmeta.graph.constant_folding import folded
from dfmeta.graph.export_torch import ATOL, RTOL, export_module
from dfmeta.graph.inference import first_line
from dfmeta.graph.parity import check_parity, evaluating

OPSET, IR_VERSION = 18, 8


class Input(Protocol):
    """What a manifest says of one input."""

    @property
    def name(self) -> str:
        """Name of the graph's input."""

    @property
    def dtype(self) -> str:
        """Element type in lower case, such as ``float32``."""

    @property
    def shape(self) -> Sequence[int | str]:
        """Sizes, batch axis first; names for free ones."""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_FORMS: Mapping[str, tuple[str, Callable[[str], object]]] = MappingProxyType(
    {
        "dfmeta.source_manifest_sha256": ("64 hexadecimal digits", re.compile("[0-9a-f]{64}").fullmatch),
        "dfmeta.source_bundle_id": ("a bundle id", str.strip),
        "dfmeta.recipe": ("JSON text", _is_json),
        "dfmeta.tool": ("a name and version", str.strip),
    }
)
PROVENANCE_KEYS = tuple(_FORMS)


def export_student(
    module: nn.Module,
    input: Input,
    output: str,
    *,
    provenance: Mapping[str, str],
    dynamic_batch: bool = False,
    atol: float = ATOL,
    rtol: float = RTOL,
) -> bytes:
    """Export a student for embedded runtimes: opset 18, IR 8, one self-contained file, batch 1.

    The same weights and provenance give the same bytes. A torch module is traced; a :class:`TorchGraph` is written as
    the graph that it is, with its present weights, its BatchNormalization folded into the convolutions where that is
    possible, in the same operators.

    Args:
        module: the student, with one input and one output.
        input: name, element type and shape of its input; the shape's first size is the batch and is replaced.
        output: name of its output.
        provenance: some of :data:`PROVENANCE_KEYS` and their values; written as the model's metadata
            properties, where they survive without the bundle.
        dynamic_batch: leave the batch free. Many embedded tools refuse that.
        atol: absolute tolerance of the comparison with torch.
        rtol: relative tolerance of it.

    Raises:
        ExportError: provenance of the wrong form, an input without fixed sizes, a graph that differs from
            the student, or that opset 18 cannot say.
    """
    _check_provenance(provenance)
    example = _example(input)
    if isinstance(module, TorchGraph):
        graph = _written(module, (input.name, output), example, dynamic_batch, atol, rtol)
        return with_provenance(graph, provenance).raw
    graph = export_module(
        module,
        (example,),
        input_names=[input.name],
        output_names=[output],
        opset=OPSET,
        ir_version=IR_VERSION,
        dynamic_batch=dynamic_batch,
        atol=atol,
        rtol=rtol,
    )
    return with_provenance(graph, provenance).raw


def _written(
    module: TorchGraph, names: tuple[str, str], example: torch.Tensor, dynamic_batch: bool, atol: float, rtol: float
) -> Graph:
    """The module's own graph in the canonical form, compared with it in onnxruntime."""
    where = f"export of {module.graph.where}"
    if len(module.graph.inputs) != 1 or len(module.graph.outputs) != 1:
        found = f"{len(module.graph.inputs)} inputs and {len(module.graph.outputs)} outputs"
        raise ExportError(where, found, "one of each")
    own = module.graph.inputs[0]
    if own.shape[1:] != tuple(example.shape[1:]):
        raise ExportError(
            f"input {names[0]!r}", f"shape {list(example.shape[1:])} after the batch", f"{list(own.shape[1:])}"
        )
    try:
        model = onnx.ModelProto()
        model.CopyFrom(folded(free_batch(module.to_graph())).model)
        _rename_ends(model.graph, names, where)
        model = _at_opset(_fused(model), where)
        if not dynamic_batch:
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = 1
        del model.graph.value_info[:]
        canonicalise(model, OPSET, frozenset(), where)
        metadata.strip(model)
        model.ir_version = IR_VERSION
        graph = Graph.from_bytes(model.SerializeToString(deterministic=True), where)
        _compare(graph, module, example, dynamic_batch, atol, rtol)
    except GraphError as error:
        raise ExportError(where, f"a graph that does not hold ({error})", "a valid graph") from error
    return graph


def _compare(
    graph: Graph, module: TorchGraph, example: torch.Tensor, dynamic_batch: bool, atol: float, rtol: float
) -> None:
    probe = torch.randn(
        3 if dynamic_batch else 1, *example.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    sample = probe.to(example.dtype)
    device, real = _place(module)

    def reference(x: torch.Tensor) -> torch.Tensor:
        wanted: torch.Tensor = module(x.to(device, real) if x.is_floating_point() else x.to(device))
        return wanted

    with evaluating(module):
        check_parity(graph, reference, [sample], atol, rtol)


def _place(module: TorchGraph) -> tuple[torch.device, torch.dtype]:
    """Where the module's floating numbers are, and of which type."""
    for _, tensor in module.named_initializers():
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


def _rename_ends(graph: onnx.GraphProto, names: tuple[str, str], where: str) -> None:
    """Give the one input and the one output their new names."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    for value, new in zip((graph.input[0], graph.output[0]), names, strict=True):
        if value.name != new and new in taken:
            raise ExportError(where, f"another value called {new!r}", "a free name", "Choose another name.")
        for node in graph.node:
            rename(node.input, value.name, new)
            rename(node.output, value.name, new)
        value.name = new


def _fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """BatchNormalization in the convolution or matrix product before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rewritten: onnx.ModelProto = onnxscript.rewriter.rewrite(model)
    return rewritten


def _at_opset(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if set(versions.values()) == {OPSET}:
        return model
    try:
        converted: onnx.ModelProto = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter is native code that raises RuntimeError and more
        raise ExportError(
            where, f"{first_line(error)}", f"operators that opset {OPSET} has", "Use a student of plain layers."
        ) from error
    return converted


def with_provenance(graph: Graph, provenance: Mapping[str, str]) -> Graph:
    """The same graph with these metadata properties and no others.

    Args:
        graph: stays as it is.
        provenance: some of :data:`PROVENANCE_KEYS` and their values.

    Raises:
        ExportError: an unknown key or a value of the wrong form.
    """
    _check_provenance(provenance)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    metadata.set_properties(model, provenance)
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


def _check_provenance(provenance: Mapping[str, str]) -> None:
    for key, value in provenance.items():
        if key not in _FORMS:
            raise ExportError("provenance", f"key {key!r}", f"one of {', '.join(PROVENANCE_KEYS)}")
        form, holds = _FORMS[key]
        if not holds(value):
            raise ExportError(f"provenance {key!r}", repr(value), form)


def _example(input: Input) -> torch.Tensor:
    sizes = [size for size in input.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(input.shape) - 1:
        raise ExportError(
            f"input {input.name!r}",
            f"shape {list(input.shape)}",
            "fixed sizes after the batch axis",
            "Small runtimes plan their memory ahead: give a number for each size.",
        )
    if input.dtype not in CARRIERS:
        raise ExportError(f"input {input.name!r}", f"element type {input.dtype!r}", f"one of {', '.join(CARRIERS)}")
    return torch.zeros(1, *sizes, dtype=CARRIERS[input.dtype])
