"""Free text inside a graph: exporters write source paths and stack traces there, and nothing of it is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from dfmeta.graph.load import Graph

PRODUCER = "dfmeta"


def strip(model: onnx.ModelProto) -> None:
    """Clear every documentation string, every metadata property and the producer's details, in place.

    Subgraphs, tensors and attributes are covered too. What stays is names: of values, nodes and initializers.
    """
    _strip(model)
    for name in ("producer_version", "domain", "model_version"):
        model.ClearField(name)
    model.producer_name = PRODUCER


def without_text(graph: Graph) -> Graph:
    """The same graph without documentation strings and metadata properties; ``graph`` itself if it has none.

    Exporters leave source lines, stack traces and the names of folders there. No number of the graph changes, and no
    name.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    _strip(model)
    if model == graph.model:
        return graph
    return Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)


def set_properties(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Write the model's metadata properties, sorted by key so that the bytes are reproducible."""
    model.ClearField("metadata_props")
    for key, value in sorted(properties.items()):
        model.metadata_props.add(key=key, value=value)


def _strip(message: Any) -> None:
    for descriptor, content in message.ListFields():
        if descriptor.name in ("doc_string", "metadata_props"):
            message.ClearField(descriptor.name)
        elif descriptor.message_type is not None:
            for inner in [content] if hasattr(content, "ListFields") else content:
                _strip(inner)
