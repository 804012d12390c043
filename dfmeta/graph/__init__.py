"""The model as data: load an ONNX graph safely, find its sites, run it, count its costs.

Loading executes nothing. :class:`TorchGraph` runs a graph differentiably in torch, :class:`OrtGraph` fast in
onnxruntime; both return any value of the graph by name. :func:`export_module` is the one way from a torch
module to a graph; it is imported when first used, since it brings the whole exporter with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfmeta.graph.batch import free_batch
from dfmeta.graph.costs import Costs, costs
from dfmeta.graph.executor import TorchGraph
from dfmeta.graph.load import Graph, Value
from dfmeta.graph.ort import OrtGraph
from dfmeta.graph.sites import SiteValue, weight_sites

if TYPE_CHECKING:
    from dfmeta.graph.export_torch import export_module

__all__ = [
    "Costs",
    "Graph",
    "OrtGraph",
    "SiteValue",
    "TorchGraph",
    "Value",
    "costs",
    "export_module",
    "free_batch",
    "weight_sites",
]


def __getattr__(name: str) -> Any:
    if name == "export_module":
        from dfmeta.graph.export_torch import export_module

        return export_module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
