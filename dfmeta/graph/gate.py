"""The gate: what an untrusted ONNX file must be before anything else looks at it.

Each refusal is a :class:`~dfmeta.errors.GraphError` that names the node or tensor and says what to do. Order
matters: cheap structural checks come first, shape inference (which does work in proportion to the graph)
last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import checker, defs

from dfmeta.errors import GraphError, UnsupportedOperator
from dfmeta.graph import wire
from dfmeta.graph.dtypes import name_of
from dfmeta.graph.gate_attributes import check_attributes
from dfmeta.graph.inference import REEXPORT, first_line, infer, node_label, with_identity

__all__ = ["check", "infer", "opset", "parse"]

MAX_BYTES: Final = 2**31 - 1
MAX_NODES: Final = 100_000
MAX_INITIALIZERS: Final = 100_000
MAX_RANK: Final = 8
OPSETS: Final = range(9, 25)
DOMAINS: Final = frozenset({"", "ai.onnx"})

_DAMAGED: Final = "The file is cut short or damaged: copy or export it again."
_SUBGRAPHS: Final = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS})


def parse(raw: bytes, where: str) -> onnx.ModelProto:
    """Bytes to a message.

    Raises:
        GraphError: empty, too large, or not a serialized model.
    """
    if not raw:
        raise GraphError(where, "an empty file", "a serialized ONNX model", _DAMAGED, code="graph-not-onnx")
    if len(raw) > MAX_BYTES:
        raise GraphError(
            where, f"{len(raw)} bytes", f"at most {MAX_BYTES}", "Split or shrink the model.", code="graph-too-large"
        )
    if crowded := wire.too_many(raw, onnx.ModelProto.DESCRIPTOR):
        fix = "Simplify the graph before publishing it."
        expected = f"at most {wire.MAX_MESSAGES} messages and {wire.MAX_FIELDS} fields"
        raise GraphError(where, crowded, expected, fix, code="graph-too-large")
    try:
        model = onnx.load_model_from_string(raw)
    except (DecodeError, ValueError) as error:
        raise GraphError(
            where,
            "bytes that are not an ONNX model",
            "a serialized ModelProto",
            _DAMAGED,
            code="graph-not-onnx",
        ) from error
    if not model.HasField("graph"):
        raise GraphError(where, "a model without a graph", "one graph", _DAMAGED, code="graph-not-onnx")
    return model


def check(model: onnx.ModelProto, raw: bytes, where: str) -> None:
    """Every structural rule, then ONNX's own checker.

    Raises:
        GraphError: the first rule that is broken.
    """
    _refuse_broken_text(model, where)
    _refuse_external(model, where)
    _refuse_code(model, where)
    for index, node in enumerate(model.graph.node):
        _refuse_attributes(node, f"{where}: {node_label(node, index)}")
    opset(model, where)
    _check_sizes(model.graph, where)
    _check_domains(model.graph, where)
    _check_wiring(model.graph, where)
    _check_operators(model, where)
    check_attributes(model.graph, where)
    # Opset 21 changed GroupNormalization and declared the form of opset 18 deprecated: sound, so it may pass.
    deprecated = frozenset({"GroupNormalization"}) if opset(model, where) < 21 else frozenset()
    standing_in = with_identity(model, deprecated)
    try:
        checker.check_model(raw if standing_in is model else standing_in, full_check=False)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        found = f"an invalid model: {first_line(error)}"
        raise GraphError(where, found, "a valid ONNX model", REEXPORT, code="graph-checker") from error


def opset(model: onnx.ModelProto, where: str) -> int:
    """Version of the default operator set.

    Raises:
        GraphError: none declared, two that differ, or one outside 9 to 24.
    """
    versions = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if len(versions) != 1:
        found = f"default operator set versions {sorted(versions)}"
        raise GraphError(where, found, "exactly one", REEXPORT, code="graph-opset")
    version = int(versions.pop())
    if version not in OPSETS:
        raise GraphError(
            where,
            f"opset {version}",
            f"{OPSETS.start} to {OPSETS.stop - 1}",
            "Export the model with opset 18.",
            code="graph-opset",
        )
    return version


def _messages(message: Message) -> Iterator[Message]:
    """``message`` and every message inside it, subgraphs and attributes included."""
    stack = [message]
    while stack:
        current = stack.pop()
        yield current
        for descriptor, content in current.ListFields():
            if descriptor.message_type is not None:
                stack.extend([content] if isinstance(content, Message) else content)


def _refuse_broken_text(model: onnx.ModelProto, where: str) -> None:
    """Text that is not UTF-8 comes out of the parser as bytes, which nothing downstream expects."""
    for message in _messages(model):
        for descriptor, content in message.ListFields():
            if descriptor.type != FieldDescriptor.TYPE_STRING:
                continue
            texts = [content] if isinstance(content, str | bytes) else content
            if any(isinstance(text, bytes) for text in texts):
                found = f"a {descriptor.full_name} that is not UTF-8"
                raise GraphError(where, found, "UTF-8 text", _DAMAGED, code="graph-not-utf8")


def _refuse_external(model: onnx.ModelProto, where: str) -> None:
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (
            message.data_location == onnx.TensorProto.EXTERNAL or message.external_data
        ):
            raise GraphError(
                f"{where}: tensor {message.name!r}",
                "external data",
                "every tensor inside the file",
                "Save with save_as_external_data=False, or export with external_data=False.",
                code="graph-external-data",
            )


def _refuse_code(model: onnx.ModelProto, where: str) -> None:
    if model.functions:
        raise GraphError(
            f"{where}: function {model.functions[0].name!r}",
            f"{len(model.functions)} model-local functions",
            "none",
            "Inline them with onnx.inliner.inline_local_functions.",
            code="graph-function",
        )
    if model.training_info:
        fix = "Export the model in eval mode."
        raise GraphError(where, "training information", "an inference graph", fix, code="graph-training")
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        label = f"{where}: tensor {name!r}"
        raise GraphError(label, "a sparse initializer", "dense initializers", REEXPORT, code="graph-sparse")


def _refuse_attributes(node: onnx.NodeProto, label: str) -> None:
    """Control flow, sparse tensors and text. Control flow, because no limit on sizes bounds how long a loop runs."""
    for attribute in node.attribute:
        inside = list(_messages(attribute))
        if attribute.type in _SUBGRAPHS or any(isinstance(message, onnx.GraphProto) for message in inside):
            raise UnsupportedOperator(
                label,
                f"a subgraph in attribute {attribute.name!r}",
                "a graph without control flow (If, Loop, Scan, SequenceMap)",
                "Export the model with its branches resolved and its loops unrolled.",
                code="graph-control-flow",
            )
        if any(isinstance(message, onnx.SparseTensorProto) for message in inside):
            found = f"a sparse tensor in attribute {attribute.name!r}"
            raise GraphError(label, found, "dense tensors", REEXPORT, code="graph-sparse")
        if node.op_type == "Constant" and attribute.name in ("value_string", "value_strings"):
            found = f"text in attribute {attribute.name!r}"
            raise GraphError(label, found, "a numeric constant", REEXPORT, code="graph-text")


def _check_sizes(graph: onnx.GraphProto, where: str) -> None:
    for what, count, most in (
        ("nodes", len(graph.node), MAX_NODES),
        ("initializers", len(graph.initializer), MAX_INITIALIZERS),
    ):
        if count > most:
            fix = "Simplify the graph before publishing it."
            raise GraphError(where, f"{count} {what}", f"at most {most}", fix, code="graph-too-large")
    for tensor in (message for message in _messages(graph) if isinstance(message, onnx.TensorProto)):
        _check_tensor(tensor, where)


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    label = f"{where}: tensor {tensor.name!r}"
    if len(tensor.dims) > MAX_RANK:
        raise GraphError(label, f"rank {len(tensor.dims)}", f"at most {MAX_RANK}", REEXPORT, code="graph-tensor")
    if any(size < 0 for size in tensor.dims):
        found = f"shape {list(tensor.dims)}"
        raise GraphError(label, found, "sizes of zero or more", REEXPORT, code="graph-tensor")
    if name_of(tensor.data_type) == "undefined" or tensor.data_type == onnx.TensorProto.STRING:
        code = "graph-text" if tensor.data_type == onnx.TensorProto.STRING else "graph-tensor"
        raise GraphError(label, f"element type {name_of(tensor.data_type)}", "a numeric type", REEXPORT, code=code)
    try:
        onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise GraphError(
            label,
            f"data that do not fill shape {list(tensor.dims)}",
            "as many elements as the shape says",
            REEXPORT,
            code="graph-tensor",
        ) from error


def _check_domains(graph: onnx.GraphProto, where: str) -> None:
    for index, node in enumerate(graph.node):
        if node.domain not in DOMAINS:
            raise GraphError(
                f"{where}: {node_label(node, index)}",
                f"operator domain {node.domain!r}",
                "the default domain",
                "Export without runtime-specific optimisation, so that only standard operators remain.",
                code="graph-domain",
            )


def _check_wiring(graph: onnx.GraphProto, where: str) -> None:
    """Single assignment, in order, from defined names: so no cycle can exist."""
    known = {item.name for item in (*graph.input, *graph.initializer)}
    produced = {name for node in graph.node for name in node.output if name}
    for index, node in enumerate(graph.node):
        label = f"{where}: {node_label(node, index)}"
        for name in (name for name in node.input if name and name not in known):
            if name in produced:
                found, fix = (
                    f"input {name!r} before it is produced",
                    "The nodes form a cycle or are out of order.",
                )
            else:
                found, fix = f"input {name!r} that nothing defines", "A node or an initializer is missing."
            raise GraphError(label, found, "inputs that earlier nodes produce", fix, code="graph-wiring")
        for name in filter(None, node.output):
            if name in known:
                found = f"a second value named {name!r}"
                raise GraphError(label, found, "unique value names", REEXPORT, code="graph-wiring")
            known.add(name)
    for output in graph.output:
        if output.name not in known:
            label = f"{where}: output {output.name!r}"
            raise GraphError(label, "nothing that produces it", "a node's output", REEXPORT, code="graph-wiring")


def _check_operators(model: onnx.ModelProto, where: str) -> None:
    version = opset(model, where)
    for index, node in enumerate(model.graph.node):
        try:
            schema = defs.get_schema(node.op_type, version, "")
        except defs.SchemaError:
            schema = None
        if schema is None:
            raise UnsupportedOperator(
                f"{where}: {node_label(node, index)}",
                f"operator {node.op_type!r}, which opset {version} does not have",
                "a standard operator",
                "Check the opset import, or export again with opset 18.",
                code="graph-operator",
            )
