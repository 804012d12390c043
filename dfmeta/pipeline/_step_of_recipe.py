"""One step of a recipe: run, verified, measured."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from dfmeta.compress import distill as distillation
from dfmeta.compress import equalize, factorize, finetune, prune, quantize
from dfmeta.compress._chain import State
from dfmeta.compress.recipe import Distillation, Step
from dfmeta.errors import ExportError
from dfmeta.export import export_student
from dfmeta.export.quantized import value_bits
from dfmeta.graph import Graph, TorchGraph
from dfmeta.pipeline.closed_form import ROUNDED, TOLERANCE, Progress, Source, require_finite, require_same, stages
from dfmeta.pipeline.evaluation import Evaluation, evaluate
from dfmeta.pipeline.inputs import make_task
from dfmeta.pipeline.synthesising import new_student

Inputs = Callable[[], Tensor]

# Of weights, and of the biases between 8-bit weights and values.
_CODES = frozenset({"int4", "int8", "int32"})
_SHRINK = frozenset({"prune", "factorize"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a step says of itself.

    Attributes:
        error: as of :class:`dfmeta.pipeline.compressing.StepDone`.
        operators: its own report.
        notes: what a reader should know, in sentences.
    """

    error: float | None
    operators: tuple[object, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trained:
    """The report of a step that trains.

    Attributes:
        steps: of the optimiser.
        before, after: mean squared error of the logits, in units of the teacher's variance, on synthetic inputs; before
            None for a student that starts from nothing.
        matched: values inside that were matched too.
    """

    steps: int
    before: float | None
    after: float
    matched: tuple[str, ...] = ()


def run(
    step: Step, state: State, source: Source, inputs: Inputs, seed: int, device: str, progress: Progress | None
) -> tuple[State, Facts]:
    """Run one step.

    Args:
        step: what to do.
        state: the graph and its records.
        source: the bundle.
        inputs: makes synthetic inputs.
        seed: of training.
        device: of training.
        progress: called with stage, steps done, steps in all, and loss.
    """
    graph, records, config = state.graph, state.records, step.config
    if step.name == "equalize":
        equal = equalize.run(graph, records, config, stages(progress))
        return state.equalized(equal), Facts(None, equal.pairs)
    if step.name == "prune":
        pruned = prune.run(graph, records, config, stages(progress))
        errors = [one.error for one in pruned.operators]
        return state.after(pruned.graph), Facts(_mean(errors), (*pruned.groups, *pruned.operators))
    if step.name == "factorize":
        cut = factorize.run(graph, records, config, stages(progress))
        return state.after(cut.graph), Facts(_mean([one.error for one in cut.operators if one.ranks]), cut.operators)
    if step.name == "quantize":
        rounded = quantize.run(graph, records, config, stages(progress))
        errors = [layer.error for layer in rounded.layers if layer.bits < 32]
        return state.after(rounded.graph), Facts(_mean(errors), rounded.layers, quantize.notes(rounded.layers, config))
    if step.name == "finetune":
        tuned = finetune.run(graph, source.graph, inputs(), config, progress, seed=seed, device=device)
        trained = Trained(tuned.steps, tuned.before, tuned.after, tuned.matched)
        return state.after(tuned.graph), Facts(tuned.after, (trained,))
    student, trained = _distilled(config, source, inputs(), seed, device, progress)
    return state.after(student), Facts(trained.after, (trained,))


def _mean(errors: Sequence[float]) -> float:
    return math.fsum(errors) / len(errors) if errors else 0.0


def _distilled(
    config: Distillation, source: Source, inputs: Tensor, seed: int, device: str, progress: Progress | None
) -> tuple[Graph, Trained]:
    """A student in the place of the graph."""
    task = make_task(source.opened.bundle, source.graph, seed, device)
    student = new_student(config.student, source.opened, task, seed)
    given = inputs.to(task.device)

    def draw(count: int) -> Tensor:
        return given[task.integers(len(given), count)]

    training = distillation.Config(**{one.name: getattr(config, one.name) for one in fields(distillation.Config)})
    done = distillation.distill(student, task.logits, draw, training, task.generator, progress)
    entry = source.opened.bundle.manifest.model.inputs[0]
    free = not isinstance(source.graph.inputs[0].shape[0], int)
    raw = export_student(student.cpu().eval(), entry, task.output_name, provenance={}, dynamic_batch=free)
    graph = Graph.from_bytes(raw, "student.onnx")
    sample = inputs[:1024].cpu()
    with torch.no_grad():
        ours, theirs = (TorchGraph(one)(sample) for one in (graph, source.graph))
        after = float((ours - theirs).square().mean() / theirs.var().clamp(min=1e-12))
    return graph, Trained(done.steps, None, after)


def verify(step: Step, graph: Graph, source: Source, before: int) -> None:
    """Refuse what a step made if it does not hold.

    Args:
        step: that was run.
        graph: that it made.
        source: the bundle, whose ends and probe count.
        before: elements of all weights before it.

    Raises:
        ExportError: numbers that are not finite, other ends than the teacher's, runtimes that disagree, or a cut that
            made the graph larger.
    """
    require_finite(graph)
    require_same(graph, source, max((ROUNDED[bits] for bits in value_bits(graph)), default=TOLERANCE))
    after = weight_count(graph)
    if step.name in _SHRINK and after > before:
        raise ExportError(graph.where, f"{after} weights after {step.name}", f"at most the {before} before it")


def weight_count(graph: Graph) -> int:
    """Elements of all weights, quantized ones included."""
    codes = {node.input[0] for node in graph.model.graph.node if node.op_type == "DequantizeLinear"}
    stored = (array.size for name, array in graph.initializers.items() if name in codes and graph.dtype(name) in _CODES)
    return graph.parameter_count + sum(stored)


def measured(
    graph: Graph, source: Source, data: str, limit: int | None, seed: int, progress: Progress | None
) -> Evaluation:
    """Accuracy and agreement, beside the bundle's own model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(graph.raw)
        return evaluate(file, data, bundle=source.path, limit=limit, seed=seed, progress=progress)
