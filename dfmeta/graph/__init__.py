"""The model as data: load an ONNX graph safely, find its sites, run it, count its costs.

Loading executes nothing. :class:`TorchGraph` runs a graph differentiably in torch, :class:`OrtGraph` fast in
onnxruntime; both return any value of the graph by name. :func:`export_module` is the one way from a torch
module to a graph. What needs torch or onnxruntime is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfmeta._lazily import exports
from dfmeta.graph.costs import Costs, costs

_HOMES = {
    "free_batch": "dfmeta.graph.batch",
    "ChannelGroup": "dfmeta.graph.channels",
    "channel_groups": "dfmeta.graph.channels",
    "TorchGraph": "dfmeta.graph.executor",
    "export_module": "dfmeta.graph.export_torch",
    "Graph": "dfmeta.graph.load",
    "Value": "dfmeta.graph.load",
    "narrowed": "dfmeta.graph.narrow",
    "OrtGraph": "dfmeta.graph.ort",
    "SiteValue": "dfmeta.graph.sites",
    "weight_sites": "dfmeta.graph.sites",
}

if TYPE_CHECKING:
    from dfmeta.graph.batch import free_batch
    from dfmeta.graph.channels import ChannelGroup, channel_groups
    from dfmeta.graph.executor import TorchGraph
    from dfmeta.graph.export_torch import export_module
    from dfmeta.graph.load import Graph, Value
    from dfmeta.graph.narrow import narrowed
    from dfmeta.graph.ort import OrtGraph
    from dfmeta.graph.sites import SiteValue, weight_sites
else:
    __getattr__, __dir__ = exports(__name__, _HOMES)

__all__ = [
    "ChannelGroup",
    "Costs",
    "Graph",
    "OrtGraph",
    "SiteValue",
    "TorchGraph",
    "Value",
    "channel_groups",
    "costs",
    "export_module",
    "free_batch",
    "narrowed",
    "weight_sites",
]
