"""The graph: attributes that shape inference would believe."""

from __future__ import annotations

from functools import partial

from vectors.drafts import Case
from vectors.gate_cases import attribute, graph_of
from vectors.manifests import small
from vectors.onnx_bytes import INT64, around, node, tensor

_gate = partial(Case, area="graph", level="graph", clause="8.1", base=small)
_INDICES = [(5, tensor("i", [1, 1], bytes(8), INT64))]

CASES = (
    _gate(
        "equation-of-a-dash",
        code="graph-attribute",
        comment="Half an arrow: a reader that looks for the rest of it may look for ever.",
        draft=graph_of(around(node("Einsum", ["x"], ["y"], attribute("equation", 3, 4, "ij-")))),
    ),
    _gate(
        "equation-of-two-ellipses",
        code="graph-attribute",
        comment="Two ellipses in one term.",
        draft=graph_of(around(node("Einsum", ["x"], ["y"], attribute("equation", 3, 4, "...i...->i")))),
    ),
    _gate(
        "equation-of-two-arrows",
        code="graph-attribute",
        comment="What is the result?",
        draft=graph_of(around(node("Einsum", ["x"], ["y"], attribute("equation", 3, 4, "ij->ij->ij")))),
    ),
    _gate(
        "equation",
        code="",
        folder="valid",
        verdict="valid",
        comment="An equation with an ellipsis and a space.",
        draft=graph_of(around(node("Einsum", ["x"], ["y"], attribute("equation", 3, 4, "...j ->...j")))),
    ),
    _gate(
        "split-of-more-than-it-has",
        code="graph-attribute",
        comment="A thousand outputs announced and one made.",
        draft=graph_of(around(node("Split", ["x"], ["y"], attribute("num_outputs", 2, 3, 1000)))),
    ),
    _gate(
        "batch-dims-below-0",
        code="graph-attribute",
        comment="Counted from below, there are very many.",
        draft=graph_of(
            around(node("GatherND", ["x", "i"], ["y"], attribute("batch_dims", 2, 3, -9)), fields=_INDICES),
        ),
    ),
)
