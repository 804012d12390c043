"""The canonical form of a graph, before its numbers become integers: what old and small toolchains read.

Opset 18, IR 8, batch 1, all sizes known, operators of the default domain only, no metadata, no attribute that says what
its absence says; BatchNormalization in the weights before it or, where it follows none, a factor and a shift; biases in
the operators that they belong to (where a quantizer makes INT32 of them), padding written as numbers, GlobalAveragePool
for every mean over the image plane. It is a pass before quantising, so that the quantizer sees the operators that the
device will run: a mean that it does not know would stay in floating point.

Weights keep their values. That their codes lie in -127 to 127 with 0 for 0 is the quantizer's part
(:mod:`dfmeta.compress.quantize`), and :func:`dfmeta.export.targets.check` says whether it is so.
"""

from __future__ import annotations

import onnx
from onnx import helper

from dfmeta.errors import ExportError, GraphError
from dfmeta.export._canonical_rules import rewrite
from dfmeta.export._opset import at_opset
from dfmeta.graph import Graph, free_batch, gate, metadata
from dfmeta.graph.canonical import canonicalise, drop_unused
from dfmeta.graph.folding import without_batch_norm

OPSET, IR_VERSION, BATCH = 18, 8, 1
_ADVICE = "Export the model anew with fixed sizes, at opset 18."


def canonicalize(graph: Graph, *, keep_names: bool = False) -> Graph:
    """The graph in canonical form.

    Args:
        graph: stays as it is. A quantized one keeps its integers.
        keep_names: leave names with a slash as they are, so that records of values still find them; else they get
            names that are identifiers in other languages.

    Returns:
        The same function of one item, but for rounding. Inputs and outputs keep their names and order; so do the values
        that are still there.

    Raises:
        ExportError: operators that opset 18 does not have, sizes other than the batch's that are free, or a batch that
            cannot be set to 1 soundly.
    """
    where = f"canonical form of {graph.where}"
    try:
        model = at_opset(without_batch_norm(_free(graph)).model, OPSET, IR_VERSION, where)
        _require_opset(model, where)
        _set_batch(model, graph, where)
        rewrite(model.graph, gate.infer(model, where).graph)
        drop_unused(model.graph)
        canonicalise(model, OPSET, _slashed(model.graph) if keep_names else frozenset(), where)
        metadata.strip(model)
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid("", OPSET))
        model.ir_version = IR_VERSION
        done = Graph.from_bytes(model.SerializeToString(deterministic=True), graph.where)
    except GraphError as error:
        raise ExportError(where, f"a graph that does not go into it ({error})", "one that does", _ADVICE) from error
    _require_static(done, where)
    return done


def _free(graph: Graph) -> Graph:
    """With a batch of 1, or a free one."""
    sizes = {value.shape[0] for value in graph.inputs if value.shape}
    return graph if sizes <= {BATCH} else free_batch(graph)


def _require_opset(model: onnx.ModelProto, where: str) -> None:
    """Refuse what could not be brought down."""
    opset = gate.opset(model, where)
    if opset == OPSET:
        return
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.since_version <= OPSET}
    newer = sorted({node.op_type for node in model.graph.node} - known)
    what = (
        f"operators newer than opset {OPSET} ({', '.join(newer)})" if newer else "a form of an operator that is newer"
    )
    raise ExportError(where, f"opset {opset} with {what}", f"opset {OPSET}", _ADVICE)


def _set_batch(model: onnx.ModelProto, graph: Graph, where: str) -> None:
    """Batch 1 at every input and output; inputs that are constants are none."""
    given = {value.name for value in graph.inputs}
    for index in reversed(range(len(model.graph.input))):
        if model.graph.input[index].name not in given:
            del model.graph.input[index]
    symbols = set()
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            symbols.add(sizes[0].dim_param)
            sizes[0].dim_value = BATCH
        if any(not size.HasField("dim_value") for size in sizes):
            found = [size.dim_value or size.dim_param or "?" for size in sizes]
            raise ExportError(f"{where}: input {value.name!r}", f"shape {found}", "fixed sizes", _ADVICE)
    for value in model.graph.output:
        for size in value.type.tensor_type.shape.dim:
            if not size.HasField("dim_value"):
                symbol = size.dim_param
                size.ClearField("dim_param")
                if symbol in symbols:
                    size.dim_value = BATCH
    del model.graph.value_info[:]


def _require_static(graph: Graph, where: str) -> None:
    for node in graph.model.graph.node:
        for name in filter(None, node.output):
            sizes = graph.value(name).shape if name in graph.values else ("?",)
            if not all(isinstance(size, int) for size in sizes):
                raise ExportError(f"{where}: value {name!r}", f"shape {list(sizes)}", "fixed sizes", _ADVICE)


def _slashed(graph: onnx.GraphProto) -> frozenset[str]:
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    return frozenset(name for name in names if "/" in name)
