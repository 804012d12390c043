"""The one way from a torch module to an ONNX graph.

The module is traced in eval mode, simplified, brought into the canonical form
(:mod:`dfmeta.graph.canonical`), cleared of everything but the network itself, and then compared with its
source in onnxruntime before anybody gets to see it. Nothing is written to disk.
"""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import onnx
import onnxscript.optimizer
import onnxscript.rewriter
import torch
from torch import nn

from dfmeta.errors import ExportError, GraphError
from dfmeta.graph import metadata, parity
from dfmeta.graph.canonical import canonicalise
from dfmeta.graph.load import Graph
from dfmeta.graph.naming import name_by_value, name_nodes

ATOL, RTOL = 1e-4, 1e-3

_CHATTY = ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")
# Folding makes room for folding: a shape becomes constant, then what is computed from it.
_ROUNDS = 2
_PARITY_SEED = 0
_BATCH = "batch"


def export_module(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int = 18,
    ir_version: int = 8,
    dynamic_batch: bool = False,
    keep_batchnorm: bool = False,
    atol: float = ATOL,
    rtol: float = RTOL,
) -> Graph:
    """Export a torch module and check that the graph computes the same.

    Args:
        module: exported in eval mode; its training flags are the same afterwards.
        example: one tensor for each input, batch axis first; its batch size is the graph's unless free.
        input_names: names of the graph's inputs.
        output_names: names of the graph's outputs.
        opset: operator set version of the graph, 18 or more: the exporter's own operators start there.
        ir_version: version of the ONNX container; small tools know 8, later ones add nothing that we write.
        dynamic_batch: leave axis 0 of every input free, under the name ``batch``.
        keep_batchnorm: for publishing: each BatchNormalization keeps its own statistics, each tensor its
            state-dict name and value (a matrix that is stored transposed has ``.T`` after its name).
            Otherwise BatchNormalization is folded into the convolution before it.
        atol: absolute tolerance of the comparison, ``|difference| <= atol + rtol * |expected|``.
        rtol: relative tolerance of the comparison.

    Raises:
        ExportError: the module cannot be traced, gives different outputs for the same input, or its graph
            differs from it by more than the tolerance; the text has the difference and the tolerance.
    """
    where = f"export of {type(module).__name__}"
    _require(len(input_names) == len(example), where, f"{len(input_names)} input names", f"{len(example)}")
    _require(not dynamic_batch or all(x.ndim for x in example), where, "an input without axes", "a batch axis")
    probes = [_probe(example, size) for size in ((1, 3) if dynamic_batch else (None,))]
    with torch.random.fork_rng(devices=[]):
        _require_repeatable(module, probes[-1], atol, where)
        with parity.evaluating(module), _quiet():
            traced = _probe(example, 2) if dynamic_batch else example
            model = _traced(module, traced, input_names, output_names, opset, dynamic_batch, where)
            model = _folded(model) if keep_batchnorm else _simplified(model)
        graph = _finished(model, module, opset, ir_version, keep_batchnorm, where)
        _require_interface(graph, input_names, output_names, dynamic_batch, where)
        try:
            for probe in probes:
                parity.check_parity(graph, module, probe, atol, rtol)
        except GraphError as error:
            raise ExportError(where, f"a graph that does not run ({error})", "one that onnxruntime runs") from error
    return graph


def _traced(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int,
    dynamic_batch: bool,
    where: str,
) -> onnx.ModelProto:
    """The exporter's own graph, not yet simplified: its optimiser merges tensors that happen to be equal."""
    try:
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            external_data=False,
            optimize=False,
            verbose=False,
            opset_version=opset,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=_dynamic_shapes(module, len(example)) if dynamic_batch else None,
        )
    except Exception as error:  # tracing runs the user's code, which may raise anything
        raise ExportError(where, _root_cause(error), "a module that torch.export can trace") from error
    _require(program is not None, where, "no program", "one from torch.onnx.export")
    model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    return model


def _dynamic_shapes(module: nn.Module, inputs: int) -> tuple[object, ...]:
    """One free batch for every input, nested as ``forward`` takes them: ``*inputs`` is a tuple of its own."""
    shapes = tuple({0: torch.export.Dim(_BATCH)} for _ in range(inputs))
    parameters = list(inspect.signature(module.forward).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        return (*shapes[:first], shapes[first:])
    return shapes


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute what depends on constants alone; touches no tensor of the module."""
    for _ in range(_ROUNDS):
        onnxscript.optimizer.fold_constants(model)
        onnxscript.optimizer.remove_unused_nodes(model)
    return model


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """As :func:`_folded`, and rewrite patterns: BatchNormalization goes into the convolution before it."""
    for _ in range(_ROUNDS):
        model = onnxscript.rewriter.rewrite(_folded(model))
    return model


def _finished(
    model: onnx.ModelProto, module: nn.Module, opset: int, ir_version: int, keep_batchnorm: bool, where: str
) -> Graph:
    state = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    _prune_opsets(model, opset, where)
    try:
        canonicalise(model, opset, frozenset(state) if keep_batchnorm else frozenset(), where)
        name_by_value(model.graph, state)
        name_nodes(model.graph, module)
        metadata.strip(model)
        model.ir_version = ir_version
        return Graph.from_bytes(model.SerializeToString(deterministic=True), where)
    except GraphError as error:
        raise ExportError(where, f"a graph that does not hold ({error})", "a valid graph") from error


def _prune_opsets(model: onnx.ModelProto, opset: int, where: str) -> None:
    """Declare only the operator sets in use, and refuse another version than the one asked for.

    The exporter answers a request that it cannot meet with another version and no error.
    """
    used = {node.domain for node in model.graph.node}
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    _require(
        versions == {"": opset},
        where,
        f"operator sets {versions}",
        f"opset {opset} and no other domain",
        "Ask for opset 18: torch's exporter does not go lower for every network.",
    )
    del model.opset_import[:]
    model.opset_import.add(domain="", version=opset)


def _require_repeatable(module: nn.Module, probe: tuple[torch.Tensor, ...], atol: float, where: str) -> None:
    try:
        first, second = (parity.arrays(module, probe) for _ in range(2))
    except Exception as error:  # the user's code may raise anything
        shapes = [list(tensor.shape) for tensor in probe]
        raise ExportError(where, f"{_root_cause(error)}, on inputs {shapes}", "a module that runs") from error
    worst = np.inf
    if [array.shape for array in first] == [array.shape for array in second]:
        gaps = [parity.difference(*pair) for pair in zip(first, second, strict=True)]
        worst = max(float(gap.max(initial=0.0)) for gap in gaps)
    _require(
        worst <= atol,
        where,
        f"outputs of two calls on the same input that differ by {worst:.3g}",
        f"at most {atol:g}",
        "A network that draws random numbers in eval mode cannot be exported: take them out of forward.",
    )


def _probe(example: tuple[torch.Tensor, ...], batch: int | None) -> tuple[torch.Tensor, ...]:
    """Random inputs like the example: normal numbers; integers within the example's own range."""
    generator = torch.Generator().manual_seed(_PARITY_SEED)
    probes = []
    for tensor in example:
        shape = tensor.shape if batch is None else (batch, *tensor.shape[1:])
        if tensor.is_floating_point():
            probe = torch.randn(shape, generator=generator)
        else:
            low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
            probe = torch.randint(low, high + 1, shape, generator=generator)
        probes.append(probe.to(tensor.device, tensor.dtype))
    return tuple(probes)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, log lines or printed code of the exporter: its failures are exceptions, and get out."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        printed = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _require(holds: bool, where: str, found: str, expected: str, fix: str = "") -> None:
    if not holds:
        raise ExportError(where, found, expected, fix)


def _require_interface(
    graph: Graph, input_names: Sequence[str], output_names: Sequence[str], dynamic_batch: bool, where: str
) -> None:
    for what, values, names in (
        ("inputs", graph.inputs, input_names),
        ("outputs", graph.outputs, output_names),
    ):
        found = [value.name for value in values]
        _require(found == list(names), where, f"{what} {found}", f"{list(names)}", "Give one name for each.")
    _require(
        not dynamic_batch or all(value.shape[0] == _BATCH for value in graph.inputs),
        where,
        f"inputs of shapes {[list(value.shape) for value in graph.inputs]}",
        "a free first axis in each",
        "Does forward turn the batch size into a number of its own, or compare it with one?",
    )
