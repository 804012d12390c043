"""A graph in onnxruntime: fast, not differentiable, any value by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from dfmeta import _watched
from dfmeta.errors import GraphError
from dfmeta.graph.batch import fixed_batch, free_batch
from dfmeta.graph.load import Graph

_FAILURES = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
)


class OrtGraph:
    """An onnxruntime session on the CPU over the graph's own bytes, intermediate values added as outputs.

    Optimisation stops at ``ORT_ENABLE_BASIC``: constants are folded, dead nodes dropped and
    BatchNormalization may be folded into the convolution before it (unless the value between them is asked
    for), which moves results by rounding only. No layout change, no approximation, no custom operators; the
    session never sees a path.

    Args:
        graph: a checked graph.
        values: intermediate values to return beside the outputs.
        threads: threads within an operator; None lets onnxruntime choose.
        dynamic_batch: accept any batch size even where the graph says a fixed one (see
            :mod:`dfmeta.graph.batch`); items are then run in groups of the fixed size if the graph cannot be
            freed.
        written: bytes of a file that computes the same, such as with operators of onnxruntime's own; they are opened as
            anyone would, with all the optimisations that are its default, and no intermediate values.

    Raises:
        GraphError: an unknown value, or a graph that onnxruntime refuses.
    """

    def __init__(
        self,
        graph: Graph,
        values: Sequence[str] = (),
        threads: int | None = None,
        dynamic_batch: bool = False,
        written: bytes | None = None,
    ) -> None:
        self.graph = graph
        self._group: int | None = None
        if written is not None:
            self._group = fixed_batch(graph)
        elif dynamic_batch:
            graph, self._group = _freed(graph)
        outputs = {output.name for output in graph.outputs}
        given = {value.name for value in graph.inputs} | set(graph.initializer_names)
        self._given = [name for name in dict.fromkeys(values) if graph.value(name) and name in given]
        tapped = [name for name in dict.fromkeys(values) if name not in outputs | given]
        self._names = [output.name for output in graph.outputs] + tapped
        self._ran = False
        # It computes what is constant, which is what a graph asks for like any other of its values.
        with _watched.timed(graph.where, "a session of onnxruntime"):
            self._session = _session(graph, tapped, threads, written)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs and the chosen values, by name.

        Raises:
            GraphError: inputs that are missing or do not fit.
        """
        if self._group is None:
            found = self._run(inputs)
        else:
            parts = [self._run(part) for part in _parts(self.graph, inputs, self._group)]
            found = {name: self._joined(name, [part[name] for part in parts]) for name in self._names}
        for name in self._given:
            found[name] = inputs[name] if name in inputs else self.graph.initializers[name]
        return found

    def _joined(self, name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
        if not parts[0].ndim or len(parts[0]) != self._group:
            raise GraphError(
                self.graph.where,
                f"value {name!r} of shape {list(parts[0].shape)}",
                f"the fixed batch {self._group} as its axis 0",
                "Run the graph at its own batch size, or export it with a dynamic batch.",
            )
        return np.concatenate(parts)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            if self._ran:
                arrays = self._session.run(self._names, dict(inputs))
            else:
                with _watched.timed(self.graph.where, "a first forward pass"):
                    arrays = self._session.run(self._names, dict(inputs))
                self._ran = True
        except _FAILURES as error:
            raise GraphError(
                self.graph.where,
                f"inputs that onnxruntime cannot run ({_short(error)})",
                "inputs that fit the graph",
                "Check the names, shapes and types of the inputs.",
            ) from error
        return dict(zip(self._names, arrays, strict=True))


def _freed(graph: Graph) -> tuple[Graph, int | None]:
    """The graph with a free batch; or the graph itself and its fixed batch size, when it cannot be freed."""
    try:
        return free_batch(graph), None
    except GraphError:
        fixed = fixed_batch(graph)
        if fixed is None:
            raise
        return graph, fixed


def _parts(graph: Graph, inputs: Mapping[str, np.ndarray], group: int) -> list[dict[str, np.ndarray]]:
    count = {len(array) for array in inputs.values()}
    if len(count) != 1 or (total := next(iter(count))) % group:
        raise GraphError(
            graph.where,
            f"batches of {', '.join(map(str, sorted(count)))}",
            f"one multiple of the graph's fixed batch {group} for all inputs",
            "Cut the batch, or export the graph with a dynamic batch.",
        )
    return [{name: x[at : at + group] for name, x in inputs.items()} for at in range(0, total, group)]


def _session(graph: Graph, tapped: Sequence[str], threads: int | None, written: bytes | None) -> Any:
    raw = graph.raw if written is None else written
    if tapped:
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        for name in tapped:
            model.graph.output.append(_tap(graph, name))
        raw = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    if written is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    # Its idle threads would otherwise turn in circles for a while, on the cores that torch needs next: on two cores
    # that makes short torch operations many times slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except _FAILURES as error:
        raise GraphError(
            graph.where,
            f"a graph that onnxruntime refuses ({_short(error)})",
            "a graph that it runs",
            "Install a newer onnxruntime, or export the graph at an earlier opset.",
        ) from error


def _tap(graph: Graph, name: str) -> onnx.ValueInfoProto:
    value = graph.value(name)
    kind = onnx.TensorProto.DataType.Value(
        {"float32": "FLOAT", "float64": "DOUBLE"}.get(value.dtype, value.dtype.upper())
    )
    return onnx.helper.make_tensor_value_info(name, kind, None)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
