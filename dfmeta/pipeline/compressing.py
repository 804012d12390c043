"""A recipe of steps from a bundle alone: the verb ``compress``."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfmeta import synthesis
from dfmeta.bundle import write_folder
from dfmeta.compress._chain import Site, State
from dfmeta.compress.recipe import Recipe, Step
from dfmeta.export import with_provenance
from dfmeta.graph import Costs, costs
from dfmeta.pipeline import _step_of_recipe
from dfmeta.pipeline._synthetic_inputs import SyntheticInputs
from dfmeta.pipeline.closed_form import Progress, Source, open_source, stages
from dfmeta.pipeline.consume import chosen_method
from dfmeta.pipeline.evaluation import Evaluation

MODEL, REPORT = "student.onnx", "report.json"


@dataclass(frozen=True, slots=True)
class StepDone:
    """One step, after it was verified.

    Attributes:
        name: of the step.
        settings: its own, defaults written out.
        seconds: that it took, records taken anew included.
        costs: parameters, MACs and bytes of its graph; a quantized weight is no parameter here.
        weights: elements of all weights, quantized ones included.
        error: predicted: mean over the changed operators of the expected squared change of their outputs, as a share
            of what these are; of fine-tuning and distilling the logits' measured one, on synthetic inputs. None for
            equalize, which changes nothing.
        sites: where the records that it read come from; empty where it reads none.
        operators: the step's own report.
        notes: what a reader should know, in sentences.
        accuracy, agreement: percent, on the data that was given; None without data.
    """

    name: str
    settings: dict[str, object]
    seconds: float
    costs: Costs
    weights: int
    error: float | None
    sites: tuple[Site, ...]
    operators: tuple[object, ...]
    notes: tuple[str, ...]
    accuracy: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Compressed:
    """What :func:`compress` wrote.

    Attributes:
        path: the folder.
        model: the student's file in it.
        recipe: what was asked for, defaults written out.
        steps: in order.
        teacher_costs: of the bundle's graph.
        teacher_weights: elements of all its weights.
        teacher_accuracy: percent, on the data that was given.
        count: units of that data; 0 without.
        inputs: how many synthetic inputs were made; 0 where no step needed any.
        inputs_from: the method that made them, or the file that they were read from; empty where none were made.
        seed: of everything that is drawn at random.
        source: sha256 of the bundle's manifest.
    """

    path: Path
    model: Path
    recipe: dict[str, object]
    steps: tuple[StepDone, ...]
    teacher_costs: Costs
    teacher_weights: int
    teacher_accuracy: float | None
    count: int
    inputs: int
    inputs_from: str
    seed: int
    source: str


def compress(
    bundle: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    inputs: str | None = None,
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Compressed:
    """Take a bundle's model through a recipe, verifying it after each step, and write a folder, or nothing.

    The folder holds ``student.onnx`` and ``report.json``, which says everything that is returned.

    Args:
        bundle: its folder; of the publisher's data nothing but its records is looked at.
        out: folder to make; must not exist.
        recipe: the steps; checked already.
        inputs: synthetic inputs that :func:`dfmeta.pipeline.reconstruct` kept, in place of new ones; all are used.
        data: measure on it after each step (what ``--data`` takes); changes nothing in the student.
        limit: on that many units of it, drawn with ``seed``.
        seed: of synthetic inputs, of training, and of ``limit``.
        device: where synthesis and training run.
        progress: called with stage, steps done, steps in all, and loss.

    Raises:
        OutputExists: ``out`` is taken.
        StepError: records that are missing, or a step that could not do its work.
        ExportError: a step's graph that is not finite, larger after a cut, or that two runtimes run differently.
        BundleError, GraphError, DataError, UnknownName: see :mod:`dfmeta.errors`.
    """
    source = open_source(bundle, out)
    wanted = recipe.inputs
    # Before any step, even if none of them should need inputs.
    synthesis.configured(chosen_method(source.opened.bundle.manifest, wanted.method or None, None), wanted.settings)
    made = SyntheticInputs(source, recipe.inputs, inputs, seed, device, progress)
    run = _Run(source, recipe, made, seed, device, progress)
    for step in recipe.steps:
        run.take(step, data, limit)
    result = Compressed(
        Path(out),
        Path(out) / MODEL,
        recipe.as_dict(),
        tuple(run.done),
        costs(source.graph),
        _step_of_recipe.weight_count(source.graph),
        run.measured.teacher_accuracy if run.measured else None,
        run.measured.count if run.measured else 0,
        made.count,
        made.told,
        seed,
        source.opened.bundle.identity,
    )
    report = json.dumps(dataclasses.asdict(result), indent=2, allow_nan=False, default=_plain) + "\n"
    write_folder(out, {MODEL: run.graph.raw, REPORT: report.encode()})
    return result


class _Run:
    """A recipe under way.

    Attributes:
        state: the graph so far and its records.
        graph: the same with its provenance, as it is measured and written.
        done: the steps so far.
        measured: the last measurement; None without data.
    """

    def __init__(
        self, source: Source, recipe: Recipe, inputs: SyntheticInputs, seed: int, device: str, progress: Progress | None
    ) -> None:
        self._source, self._inputs = source, inputs
        self._seed, self._device, self._progress = seed, device, progress
        self._notes = source.opened.provenance(recipe.as_dict())
        self.state, self.graph = State(source.graph, source.records), source.graph
        self.done: list[StepDone] = []
        self.measured: Evaluation | None = None

    def take(self, step: Step, data: str | None, limit: int | None) -> None:
        """Run a step, verify what it made, and measure it where there is data."""
        source, seed, progress = self._source, self._seed, self._progress
        started = time.monotonic()
        ready = self.state.renewed(step.requires, self._inputs, stages(progress))
        self.state, facts = _step_of_recipe.run(step, ready, source, self._inputs, seed, self._device, progress)
        seconds = time.monotonic() - started
        before, self.graph = self.graph, with_provenance(self.state.graph, self._notes)
        _step_of_recipe.verify(step, self.graph, source, _step_of_recipe.weight_count(before))
        if data is not None:
            self.measured = _step_of_recipe.measured(self.graph, source, data, limit, seed, progress)
        self.done.append(
            StepDone(
                step.name,
                step.settings,
                round(seconds, 3),
                costs(self.graph),
                _step_of_recipe.weight_count(self.graph),
                facts.error,
                ready.sites(step.requires),
                facts.operators,
                facts.notes,
                self.measured.accuracy if self.measured else None,
                self.measured.agreement if self.measured else None,
            )
        )


def _plain(value: object) -> object:
    """What JSON has no type for."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} in a report")
