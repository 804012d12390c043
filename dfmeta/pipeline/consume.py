"""The consumer's side: from a bundle alone to synthetic inputs and to a checked student."""

from __future__ import annotations

import json
import os.path
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dfmeta import __version__, students, synthesis
from dfmeta.bundle import Bundle, write_file, write_safetensors
from dfmeta.compress import distill as distillation
from dfmeta.data import feed, open_data
from dfmeta.errors import DataError, IntegrityError, OutputExists, SchemaError
from dfmeta.export import export_student
from dfmeta.graph import Costs, Graph, costs
from dfmeta.pipeline.fit import fit_problems
from dfmeta.pipeline.inputs import make_task
from dfmeta.records import check_probe
from dfmeta.synthesis import Synthesis, Task

Progress = Callable[[str, int, int, float], None]
DEFAULT_METHOD = "matched-generator"


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle that has been opened, gated and proven by its probe.

    Attributes:
        bundle: the bundle.
        graph: its teacher.
    """

    bundle: Bundle
    graph: Graph


def open_release(path: str | Path) -> Opened:
    """Open a bundle for use: verified manifest and graph, safe to run, and the graph that was recorded.

    Raises:
        BundleError: an unreadable bundle, or bytes that are not what the manifest pins.
        GraphError: a graph that the gate refuses.
        SchemaError: a manifest that breaks the format, or speaks of another graph.
        IntegrityError: the probe does not give what the manifest says.
    """
    bundle = Bundle.open(path)
    graph = Graph.from_bytes(bundle.graph_bytes(), f"{path}: graph")
    misfits = fit_problems(bundle.manifest, graph)
    if misfits:
        raise SchemaError(str(path), misfits)
    problems = check_probe(graph, bundle)
    if problems:
        first = problems[0]
        raise IntegrityError(f"{path}, {first.where}", first.found, first.expected, first.fix)
    return Opened(bundle, graph)


@dataclass(frozen=True, slots=True)
class Distilled:
    """What :func:`distill` wrote.

    Attributes:
        path: the student's file.
        student: its name.
        method: where its inputs came from.
        seed: of everything.
        steps: training steps.
        loss: of the last step, mean squared logit error in units of the teacher's logit variance.
        agreement: percent of synthetic inputs on which student and teacher name the same class.
        costs: parameters, MACs and bytes of the student.
        teacher_costs: the same of the teacher.
        source: sha256 of the bundle's manifest.
    """

    path: Path
    student: str
    method: str
    seed: int
    steps: int
    loss: float
    agreement: float
    costs: Costs
    teacher_costs: Costs
    source: str


def reconstruct(
    bundle: str | Path,
    out: str | Path,
    *,
    method: str = DEFAULT_METHOD,
    count: int = 1000,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make synthetic inputs from a bundle and write them as ``.safetensors`` with ``x`` and ``y``.

    Args:
        bundle: its folder.
        out: file to write; must not exist.
        method: one of :func:`dfmeta.synthesis.names`.
        count: how many inputs.
        seed: of everything.
        settings: fields of the method's ``Config`` as text.
        progress: called with stage, steps done, steps in all, and loss.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    if count < 1:
        raise DataError("--count", str(count), "1 or more")
    inputs, labels = synthesise(open_release(bundle), method, count, seed, settings, progress)
    tensors = {"x": inputs.numpy(), "y": labels.numpy()}
    write_file(out, write_safetensors(tensors, {"dfmeta": "synthetic"}))
    return Path(out)


def synthesise(
    opened: Opened,
    method: str,
    count: int,
    seed: int,
    settings: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """``[count, ...]`` inputs and ``[count]`` labels, in memory."""
    task = make_task(opened.bundle, opened.graph, seed)
    made = synthesis.build(method, task, settings)
    prepare(made, progress)
    return made.sample(count)


def prepare(made: Synthesis, progress: Progress | None) -> None:
    """Run a method's optimisation to its end."""
    for step in range(made.steps):
        loss = made.advance()
        if progress is not None:
            progress("synthesise", step + 1, made.steps, loss)


def distill(
    bundle: str | Path,
    out: str | Path,
    *,
    student: str,
    method: str = DEFAULT_METHOD,
    data: str | None = None,
    seed: int = 0,
    config: distillation.Config | None = None,
    settings: Mapping[str, str] | None = None,
    dynamic_batch: bool = False,
    progress: Progress | None = None,
) -> Distilled:
    """Train a student on inputs made from the records and export it as ONNX, or write nothing.

    Args:
        bundle: its folder; the only thing about the data that is looked at, unless ``data`` is given.
        out: ONNX file to write; must not exist.
        student: name of a student, or ``module:callable``.
        method: one of :func:`dfmeta.synthesis.names`.
        data: train on these inputs instead (what ``--data`` takes): synthetic ones kept by
            :func:`reconstruct`, or real ones for comparison.
        seed: of everything.
        config: settings of the training.
        settings: fields of the method's ``Config`` as text.
        dynamic_batch: export with a free batch axis instead of batch 1.
        progress: called with stage, steps done, steps in all, and loss.

    Raises:
        OutputExists: ``out`` is taken.
        BundleError, GraphError, StepError, ExportError, UnknownName: see :mod:`dfmeta.errors`.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    opened = open_release(bundle)
    config = config or distillation.Config()
    task = make_task(opened.bundle, opened.graph, seed)
    network = students.build(student, task.item_shape, task.classes, seed)
    source: Callable[[int], Tensor]
    if data is None:
        made = synthesis.build(method, task, settings)
        prepare(made, progress)
        source = lambda count: made.sample(count)[0]  # noqa: E731 - one source of two
    else:
        method, source = "data", _draw(data, opened, task)
    done = distillation.distill(network, task.teacher, source, config, task.generator, progress)
    sample = source(1000)
    with torch.no_grad():
        agreement = (network(sample).argmax(1) == task.teacher(sample).argmax(1)).float().mean().item() * 100
    recipe = {
        "student": student,
        "method": method,
        "seed": seed,
        "distill": asdict(config),
        "settings": dict(settings or {}),
    }
    raw = export_student(
        network,
        opened.bundle.manifest.model.inputs[0],
        task.output_name,
        provenance={
            "dfmeta.source_manifest_sha256": opened.bundle.identity,
            "dfmeta.source_bundle_id": opened.bundle.manifest.bundle.id,
            "dfmeta.recipe": json.dumps(recipe, sort_keys=True),
            "dfmeta.tool": f"dfmeta {__version__}",
        },
        dynamic_batch=dynamic_batch,
    )
    exported = Graph.from_bytes(raw, str(out))
    write_file(out, raw)
    return Distilled(
        Path(out),
        student,
        method,
        seed,
        done.steps,
        done.loss,
        agreement,
        costs(exported),
        costs(opened.graph),
        opened.bundle.identity,
    )


def _draw(data: str, opened: Opened, task: Task) -> Callable[[int], Tensor]:
    source = open_data(data)
    batches = [b.inputs[task.input_name] for b in feed(source, opened.bundle.manifest.model.inputs, 1024)]
    inputs = torch.from_numpy(np.concatenate(batches))

    def draw(count: int) -> Tensor:
        return inputs[torch.randint(len(inputs), (count,), generator=task.generator)]

    return draw
