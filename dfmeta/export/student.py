"""A trained student as one file that a device can hold, and that still says where it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import onnx
import torch
from torch import nn

from dfmeta.errors import ExportError
from dfmeta.graph import Graph, metadata
from dfmeta.graph.dtypes import CARRIERS
from dfmeta.graph.export_torch import ATOL, RTOL, export_module

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

    The same weights and provenance give the same bytes.

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
        ExportError: provenance of the wrong form, an input without fixed sizes, or a graph that differs from
            the student.
    """
    _check_provenance(provenance)
    graph = export_module(
        module,
        (_example(input),),
        input_names=[input.name],
        output_names=[output],
        opset=OPSET,
        ir_version=IR_VERSION,
        dynamic_batch=dynamic_batch,
        atol=atol,
        rtol=rtol,
    )
    return with_provenance(graph, provenance).raw


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
