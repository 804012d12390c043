"""The consumer's side: from a bundle alone to synthetic inputs and to a checked student."""

from __future__ import annotations

import dataclasses
import os.path
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dfmeta import synthesis
from dfmeta.bundle import Bundle, write_file, write_safetensors
from dfmeta.compress import distill as distillation
from dfmeta.errors import DataError, Diverged, MethodInput, OutputExists
from dfmeta.export import export_student
from dfmeta.graph import Costs, Graph, costs
from dfmeta.pipeline import synthesising
from dfmeta.pipeline.inputs import make_task
from dfmeta.pipeline.opening import Opened, open_release
from dfmeta.schema.v1 import Manifest
from dfmeta.synthesis import Synthesis, Task

Progress = Callable[[str, int, int, float], None]
DEFAULT_STUDENT = "scaled:0.5"
# A single step of the synthesis may take longer than all the time there is; training still does something.
LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Distilled:
    """What :func:`distill` wrote.

    Attributes:
        path: the student's file.
        student: its name.
        method: where its inputs came from.
        seed: of everything.
        steps: training steps.
        loss: of the last step; of the default loss, in units of the teacher's logit variance.
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
    method: str | None = None,
    count: int = 1000,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    student: str | None = None,
    data: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Make synthetic inputs from a bundle and write them as ``.safetensors`` with ``x`` and ``y``.

    Args:
        bundle: its folder.
        out: file to write; must not exist.
        method: one of :func:`dfmeta.synthesis.names`; by default that of :func:`method_name`.
        count: how many inputs.
        seed: of everything.
        settings: fields of the method's ``Config`` as text.
        classes: numbers or names of the classes to make inputs of; all of them where none is named.
        student: for a method that learns from one: the ONNX file of a trained student, or the name of a student that
            is then trained beside it, with the method's own schedule.
        data: what ``--data`` takes, for a method that draws from data.
        device: torch's name of the device that does the work.
        progress: called with stage, steps done, steps in all, and loss.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    if count < 1:
        raise DataError("--count", str(count), "1 or more")
    opened = open_release(bundle)
    inputs, labels = synthesise(
        opened, method, count, seed, settings, progress, classes=classes, student=student, data=data, device=device
    )
    tensors = {"x": inputs.cpu().numpy(), "y": labels.cpu().numpy()}
    write_file(out, write_safetensors(tensors, {"dfmeta": "synthetic"}))
    return Path(out)


def synthesise(
    opened: Opened,
    method: str | None,
    count: int,
    seed: int,
    settings: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    *,
    classes: Sequence[str] | None = None,
    student: str | None = None,
    data: str | None = None,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """``[count, ...]`` inputs and ``[count]`` labels, in memory; arguments as of :func:`reconstruct`."""
    method = chosen_method(opened.bundle.manifest, method, data)
    task = make_task(opened.bundle, opened.graph, seed, device)
    wanted = synthesising.chosen_classes(classes or (), opened, task.classes)
    network, alone = None, True
    if student is not None:
        if "student" not in synthesis.uses(method):
            raise MethodInput(f"method {method!r}", "--student", "none", "It does not look at any student.")
        alone = student.endswith(".onnx")
        network = (
            synthesising.trained_student(student, task)
            if alone
            else synthesising.new_student(student, opened, task, seed)
        )
    made = synthesising.begin(task, opened, method, settings=settings, student=network, data=data)
    if alone or network is None:
        synthesising.prepare(made, progress)
    else:
        draw, teach = synthesising.source(made, progress), synthesising.answers(made, task)
        distillation.distill(network, teach, draw, training_config(method), task.generator, progress)
    return synthesising.sample(made, count, wanted)


def training_config(method: str, given: Mapping[str, str] | None = None) -> distillation.Config:
    """The training's settings: the defaults, then those of the method's paper, then ``given``, as text.

    Raises:
        UnknownName: no such method or setting.
        DataError: text that is no value of the setting.
    """
    config = dataclasses.replace(distillation.Config(), **synthesis.training(method))
    return distillation.configured(config, given or {})


def distill(
    bundle: str | Path,
    out: str | Path,
    *,
    student: str = DEFAULT_STUDENT,
    method: str | None = None,
    data: str | None = None,
    seed: int = 0,
    config: distillation.Config | None = None,
    settings: Mapping[str, str] | None = None,
    device: str = "cpu",
    dynamic_batch: bool = False,
    progress: Progress | None = None,
    watch: distillation.Watch | None = None,
) -> Distilled:
    """Train a student on inputs made from the records and export it as ONNX, or write nothing.

    Where the loss stops being finite, the last student that was good is written beside ``out``, as
    ``<name>.last-good.onnx``, and the error says so.

    Args:
        bundle: its folder; the only thing about the data that is looked at, unless ``data`` is given.
        out: ONNX file to write; must not exist.
        student: name of a student, or ``module:callable``; by default the teacher's own graph at half its width.
        method: one of :func:`dfmeta.synthesis.names`; by default that of :func:`method_name`.
        data: train on these inputs instead (what ``--data`` takes): synthetic ones kept by
            :func:`reconstruct`, or real ones for comparison.
        seed: of everything.
        config: settings of the training; by default :func:`training_config` of the method.
        settings: fields of the method's ``Config`` as text.
        device: torch's name of the device that does the work.
        dynamic_batch: export with a free batch axis instead of batch 1.
        progress: called with stage, steps done, steps in all, and loss.
        watch: called during the training, see :func:`dfmeta.compress.distill.distill`.

    Raises:
        OutputExists: ``out`` is taken.
        BundleError, GraphError, StepError, ExportError, UnknownName: see :mod:`dfmeta.errors`.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    opened = open_release(bundle)
    method = chosen_method(opened.bundle.manifest, method, data)
    config = config or training_config(method)
    distillation.check(config)
    task = make_task(opened.bundle, opened.graph, seed, device)
    network = synthesising.new_student(student, opened, task, seed)
    made = synthesising.begin(task, opened, method, settings=settings, student=network, data=data)
    draw, config = _within(made, config, progress)
    teach = synthesising.answers(made, task)
    recipe = {
        "student": student,
        "method": method,
        "seed": seed,
        "distill": asdict(config),
        "settings": dict(settings or {}),
    }
    try:
        hints = synthesising.hints(made, task, network)
        done = distillation.distill(network, teach, draw, config, task.generator, progress, watch, hints)
    except Diverged as error:
        raise _kept(error, out, lambda: _export(network, opened, task, recipe, dynamic_batch)) from error
    sample = made.sample(1000)[0]
    with torch.no_grad():
        agreement = (network(sample).argmax(1) == task.logits(sample).argmax(1)).float().mean().item() * 100
    raw = _export(network, opened, task, recipe, dynamic_batch)
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


def _within(
    made: Synthesis, config: distillation.Config, progress: Progress | None
) -> tuple[Callable[[int], Tensor], distillation.Config]:
    """Inputs for the training, made in half of the time at most that there is; the training has what is left."""
    started = time.monotonic()
    if config.seconds is None:
        return synthesising.source(made, progress), config
    draw = synthesising.source(made, progress, started + config.seconds / 2)
    left = max(config.seconds - (time.monotonic() - started), LEAST_SECONDS)
    return draw, dataclasses.replace(config, seconds=left)


def method_name(bundle: str | Path, method: str | None = None, data: str | None = None) -> str:
    """The method that is meant where none may be given, for a bundle's folder.

    ``data`` where there is data. Otherwise what fits the records: ``matched-subspace`` where there is a `spectrum` of
    each class of the flattened input, and ``matched-generator``, which needs none of the input, where there is not.

    Raises:
        BundleError, SchemaError: no readable bundle.
    """
    return chosen_method(Bundle.open(bundle).manifest, method, data)


def chosen_method(manifest: Manifest, method: str | None, data: str | None) -> str:
    """As :func:`method_name`, of a manifest."""
    if method is not None:
        return method
    if data is not None:
        return "data"
    inputs = {entry.name for entry in manifest.model.inputs}
    sites = {site.id for site in manifest.sites if site.onnx_value() in inputs}
    found = any(
        (record.kind, record.group.by, record.features) == ("spectrum", "class", "flattened") and record.site in sites
        for record in manifest.records
    )
    return "matched-subspace" if found else "matched-generator"


def _export(network: nn.Module, opened: Opened, task: Task, recipe: Mapping[str, object], dynamic_batch: bool) -> bytes:
    return export_student(
        network.cpu().eval(),
        opened.bundle.manifest.model.inputs[0],
        task.output_name,
        provenance=opened.provenance(recipe),
        dynamic_batch=dynamic_batch,
    )


def _kept(error: Diverged, out: str | Path, export: Callable[[], bytes]) -> Diverged:
    """The same error with a word on the last good student, which is written now."""
    if not error.kept:
        return error
    beside = Path(out).with_suffix(".last-good.onnx")
    if os.path.lexists(beside):
        fix = f"{error.fix} The student of step {error.kept} was not kept: {beside} is there already."
    else:
        write_file(beside, export())
        fix = f"{error.fix} The student of step {error.kept} was kept as {beside}."
    told = Diverged(error.where, error.found, error.expected, fix)
    told.step, told.kept = error.step, error.kept
    return told
