"""The graph: what its gate refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vectors.drafts import Draft, cases_of
from vectors.manifests import small
from vectors.onnx_bytes import (
    EXTERNAL,
    FLOAT,
    INT64,
    STRING,
    around,
    graph,
    message,
    model,
    node,
    relu,
    tensor,
    value,
)

ADD = node("Add", ["x", "w"], ["y"])
EIGHT = bytes(8)
_gate, _ = cases_of("graph", level="graph", clause="8.1", base=small)
_RELU = node("Relu", ["x"], ["y"])


def graph_of(raw: bytes, opset: int = 18) -> Callable[[Draft], None]:
    """Another graph, which the manifest describes as it is."""

    def change(draft: Draft) -> None:
        draft.members["model.onnx"] = raw
        draft.manifest["model"]["graph"]["opset_import"][0]["version"] = opset

    return change


def plus_weight(dims: list[int], raw: bytes, dtype: int = FLOAT, *more: tuple[int, Any]) -> Callable[[Draft], None]:
    """Y = x + w."""
    return graph_of(around(ADD, fields=[(5, tensor("w", dims, raw, dtype, *more))]))


def _sparse() -> bytes:
    """SparseTensorProto of two elements, one of them not 0."""
    return message((1, tensor("w", [1], bytes(4))), (2, tensor("i", [1], EIGHT, INT64)), (3, 2))


def attribute(name: str, kind: int, field: int, content: int | str | bytes) -> tuple[int, bytes]:
    """An attribute of a node, as a field of it: its type, and the number of the field that holds its content."""
    return 5, message((1, name), (field, content), (20, kind))


def _huge(draft: Draft) -> None:
    """The manifest agrees: there is nothing wrong but the size."""
    dims: list[int | str] = ["batch", 2**20, 2**20]
    draft.members["model.onnx"] = relu(dims)
    manifest = draft.manifest
    for place in (manifest["model"]["inputs"][0], manifest["model"]["outputs"][0]):
        place["shape"] = list(dims)
    manifest["sites"], manifest["records"], draft.sidecars = [], [], {}


_FUNCTION = message(
    (1, "Twice"), (4, "a"), (5, "b"), (7, node("Add", ["a", "a"], ["b"])), (9, message((1, ""), (2, 18))), (10, "own")
)
_IF = graph((1, node("Relu", ["x"], ["z"])), (12, value("z", ["batch", 2])))

CASES = (
    _gate("graph-empty", code="graph-not-onnx", comment="No bytes.", draft=graph_of(b"")),
    _gate("graph-of-noise", code="graph-not-onnx", comment="Bytes that are no message.", draft=graph_of(b"\xff" * 64)),
    _gate("graph-cut-short", code="graph-not-onnx", comment="Half a message.", draft=graph_of(relu()[:40])),
    _gate(
        "model-without-a-graph",
        code="graph-not-onnx",
        comment="A version and nothing else.",
        draft=graph_of(message((1, 8))),
    ),
    _gate(
        "text-not-utf8",
        code="graph-not-utf8",
        comment="A producer's name in Latin-1.",
        draft=graph_of(relu() + message((2, b"caf\xe9"))),
    ),
    _gate(
        "external-data",
        code="graph-external-data",
        comment="A tensor in another file.",
        draft=plus_weight([2], b"", FLOAT, (13, message((1, "location"), (2, "w.bin"))), (14, EXTERNAL)),
    ),
    _gate(
        "external-data-above",
        code="graph-external-data",
        comment="A tensor in a file above the bundle.",
        draft=plus_weight([2], b"", FLOAT, (13, message((1, "location"), (2, "../w.bin"))), (14, EXTERNAL)),
    ),
    _gate(
        "external-data-unsaid",
        code="graph-external-data",
        comment="A location without the mark of one.",
        draft=plus_weight([2], EIGHT, FLOAT, (13, message((1, "location"), (2, "w.bin")))),
    ),
    _gate(
        "external-data-in-an-attribute",
        code="graph-external-data",
        comment="A constant in another file.",
        draft=graph_of(
            around(
                node(
                    "Constant",
                    [],
                    ["c"],
                    attribute(
                        "value",
                        4,
                        5,
                        tensor("w", [2], b"", FLOAT, (13, message((1, "location"), (2, "w.bin"))), (14, EXTERNAL)),
                    ),
                ),
                _RELU,
            )
        ),
    ),
    _gate(
        "model-local-function",
        code="graph-function",
        comment="A function, though nothing calls it.",
        draft=graph_of(around(_RELU, more=[(25, _FUNCTION), (8, message((1, "own"), (2, 1)))])),
    ),
    _gate(
        "training-information",
        code="graph-training",
        comment="A second graph, to train with.",
        draft=graph_of(around(_RELU, more=[(20, message((2, graph((1, _RELU)))))])),
    ),
    _gate(
        "sparse-initializer",
        code="graph-sparse",
        comment="A sparse weight.",
        draft=graph_of(around(ADD, fields=[(15, _sparse())])),
    ),
    _gate(
        "sparse-constant",
        code="graph-sparse",
        comment="A sparse constant.",
        draft=graph_of(around(node("Constant", [], ["w"], attribute("sparse_value", 11, 22, _sparse())), ADD)),
    ),
    _gate(
        "branch",
        code="graph-control-flow",
        comment="Two graphs in a node.",
        draft=graph_of(
            around(
                node("Constant", [], ["c"], attribute("value", 4, 5, tensor("t", [], b"\1", 9))),
                node("If", ["c"], ["y"], attribute("then_branch", 5, 6, _IF), attribute("else_branch", 5, 6, _IF)),
            )
        ),
    ),
    _gate(
        "text-constant",
        code="graph-text",
        comment="A constant of text.",
        draft=graph_of(around(node("Constant", [], ["c"], attribute("value_string", 3, 4, "text")), _RELU)),
    ),
    _gate(
        "text-tensor",
        code="graph-text",
        comment="A tensor of text.",
        draft=graph_of(around(_RELU, fields=[(5, message((1, 1), (2, STRING), (6, "text"), (8, "w")))])),
    ),
    _gate(
        "no-operator-set",
        code="graph-opset",
        comment="Which operators?",
        draft=graph_of(
            model(graph((1, _RELU), (11, value("x", ["batch", 2])), (12, value("y", ["batch", 2]))), opsets=[])
        ),
    ),
    _gate("operator-set-8", code="graph-opset", comment="Too old.", draft=graph_of(relu(opset=8), 8)),
    _gate("operator-set-99", code="graph-opset", comment="Not yet there.", draft=graph_of(relu(opset=99), 99)),
    _gate(
        "two-operator-sets",
        code="graph-opset",
        comment="Two versions of one set.",
        draft=graph_of(relu() + message((8, message((1, ""), (2, 17))))),
    ),
    _gate(
        "operator-of-a-vendor",
        code="graph-domain",
        comment="Code that is somewhere else.",
        draft=graph_of(
            around(node("Relu", ["x"], ["y"], (7, "com.example")), more=[(8, message((1, "com.example"), (2, 1)))])
        ),
    ),
    _gate(
        "unknown-operator",
        code="graph-operator",
        comment="No such operator.",
        draft=graph_of(around(node("Relux", ["x"], ["y"]))),
    ),
    _gate(
        "operator-of-a-later-set",
        code="graph-operator",
        comment="Gelu came with set 20.",
        draft=graph_of(around(node("Gelu", ["x"], ["y"]))),
    ),
    _gate(
        "cycle",
        code="graph-wiring",
        comment="A value before it is made.",
        draft=graph_of(around(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["a"], ["y"]))),
    ),
    _gate("undefined-value", code="graph-wiring", comment="A value that nothing makes.", draft=graph_of(around(ADD))),
    _gate(
        "value-twice", code="graph-wiring", comment="A value that is made twice.", draft=graph_of(around(_RELU, _RELU))
    ),
    _gate(
        "output-of-nothing",
        code="graph-wiring",
        comment="An output that nothing makes.",
        draft=graph_of(around(node("Relu", ["x"], ["z"]))),
    ),
    _gate(
        "initializer-too-short",
        code="graph-tensor",
        comment="Four bytes for two numbers.",
        draft=plus_weight([2], bytes(4)),
    ),
    _gate(
        "initializer-too-long",
        code="graph-tensor",
        comment="Twelve bytes for two numbers.",
        draft=plus_weight([2], bytes(12)),
    ),
    _gate("initializer-of-rank-9", code="graph-tensor", comment="Rank 9.", draft=plus_weight([2, *[1] * 8], EIGHT)),
    _gate(
        "initializer-of-negative-size", code="graph-tensor", comment="A size below 0.", draft=plus_weight([-2], EIGHT)
    ),
    _gate("initializer-of-no-type", code="graph-tensor", comment="Type 0.", draft=plus_weight([2], EIGHT, 0)),
    _gate(
        "too-many-inputs-of-a-node",
        code="graph-checker",
        comment="Relu takes one.",
        draft=graph_of(around(node("Relu", ["x", "x"], ["y"]))),
    ),
    _gate(
        "shapes-that-do-not-fit", code="graph-shapes", comment="2 and 3 features.", draft=plus_weight([3], bytes(12))
    ),
    _gate(
        "declared-otherwise",
        code="graph-shapes",
        comment="An output of another rank than comes out.",
        draft=graph_of(model(graph((1, _RELU), (11, value("x", ["batch", 2])), (12, value("y", ["batch", 2, 1]))))),
    ),
    _gate("value-of-terabytes", code="graph-huge-value", comment="2^40 numbers for each unit.", draft=_huge),
    _gate(
        "cast-to-text",
        code="graph-type",
        comment="A value of text.",
        draft=graph_of(around(node("Cast", ["x"], ["t"], attribute("to", 2, 3, STRING)), _RELU)),
    ),
)
