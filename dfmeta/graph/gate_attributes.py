"""Attributes that ONNX's own shape inference believes, whatever they say: it loops, or makes room for what they count.

Found by fuzzing onnx 1.23: an equation that is none is read for ever, `num_outputs` is the length of a vector, and a
negative `batch_dims` is counted to from below.
"""

from __future__ import annotations

import re
from typing import Final

import onnx

from dfmeta.errors import GraphError
from dfmeta.graph.inference import REEXPORT, node_label
from dfmeta.schema.json_strict import shown

_MAX_RANK: Final = 8
# Terms of letters with at most one ellipsis each; every quantifier is possessive, so that matching is linear.
_TERM: Final = rb"[A-Za-z ]*+(?:\.\.\.[A-Za-z ]*+)?+"
_EQUATION: Final = re.compile(rb"%b(?:,%b)*+(?:->%b)?+" % (_TERM, _TERM, _TERM))


def check_attributes(graph: onnx.GraphProto, where: str) -> None:
    """Refuse the attributes that inference would not come back from.

    Raises:
        GraphError: the first of them.
    """
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            expected = _expected(node, attribute)
            if expected:
                value = attribute.s.decode("utf-8", "replace") or attribute.i
                found = f"{attribute.name} {shown(value)}"
                label = f"{where}: {node_label(node, index)}"
                raise GraphError(label, found, expected, REEXPORT, code="graph-attribute")


def _expected(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> str:
    """What an attribute should be; empty where it is so, or where inference can bear anything."""
    match node.op_type, attribute.name:
        case "Einsum", "equation" if _EQUATION.fullmatch(attribute.s) is None:
            return "letters, commas, one ellipsis in a term, and at most one arrow"
        case "Split", "num_outputs" if attribute.i != len(node.output):
            return f"{len(node.output)}, as many as it has"
        case "GatherND", "batch_dims" if not 0 <= attribute.i <= _MAX_RANK:
            return f"0 to {_MAX_RANK}"
    return ""
