"""What the verbs that compress from records alone have in common: opening, checking, writing, measuring."""

from __future__ import annotations

import math
import os.path
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dfmeta.bundle import write_file
from dfmeta.errors import ExportError, OutputExists
from dfmeta.export import with_provenance
from dfmeta.graph import Costs, Graph, OrtGraph, TorchGraph, Value, costs
from dfmeta.graph.batch import fixed_batch
from dfmeta.pipeline.evaluation import Evaluation, evaluate
from dfmeta.pipeline.opening import Opened, open_release
from dfmeta.records import PublishedRecords
from dfmeta.report import ModelRow

Progress = Callable[[str, int, int, float], None]
Watch = Callable[[str, int, int], None]

# How far onnxruntime and torch may differ, as a share of the largest output. Where they round a number to different
# integers, an output moves by steps of the quantized values: by their bits.
TOLERANCE = 1e-3
ROUNDED = {8: 0.1, 4: 0.5}


@dataclass(frozen=True, slots=True)
class Source:
    """A bundle opened for a method that reads its records, and no data.

    Attributes:
        path: the bundle's folder.
        opened: the bundle, verified, with its teacher.
        records: all usable ones.
    """

    path: Path
    opened: Opened
    records: PublishedRecords

    @property
    def graph(self) -> Graph:
        """The teacher."""
        return self.opened.graph


@dataclass(frozen=True, slots=True)
class Written:
    """The file that a method left.

    Attributes:
        path: the model.
        bytes: its size.
        costs: parameters, MACs and bytes of it; a quantized weight is no parameter here.
        teacher_costs: the same of the teacher.
        source: sha256 of the bundle's manifest.
        evaluation: on the data that was given, before the file was written; None without data.
    """

    path: Path
    bytes: int
    costs: Costs
    teacher_costs: Costs
    source: str
    evaluation: Evaluation | None = None

    def rows(self, name: str) -> tuple[ModelRow, ModelRow]:
        """The teacher and this model, ``name``, for a table."""
        found = self.evaluation
        if found is None:
            return ModelRow.of("teacher", self.teacher_costs), ModelRow.of(name, self.costs)
        teacher = ModelRow.of("teacher", self.teacher_costs, found.teacher_accuracy)
        return teacher, ModelRow.of(name, self.costs, found.accuracy, found.agreement)


def stages(progress: Progress | None) -> Watch:
    """What a step calls with a stage, steps done and steps in all, passed on; such a step has no loss."""

    def watch(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(stage, done, total, 0.0)

    return watch


def open_source(bundle: str | Path, out: str | Path) -> Source:
    """Open a bundle and read its records; every digest and the probe are checked first.

    Args:
        bundle: its folder.
        out: the file that is to be written.

    Raises:
        OutputExists: ``out`` is taken.
        BundleError, GraphError, SchemaError: see :func:`dfmeta.pipeline.opening.open_release`.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    opened = open_release(bundle)
    return Source(Path(bundle), opened, PublishedRecords.read(opened.bundle))


def finish(
    source: Source,
    graph: Graph,
    out: str | Path,
    recipe: Mapping[str, object],
    *,
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    raw: Callable[[Mapping[str, str]], bytes] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Check a compressed graph, measure it, and write it whole or not at all.

    Args:
        source: what it was made from.
        graph: the compressed graph, with the teacher's inputs and outputs.
        out: file to write; must not exist.
        recipe: what was asked for, in JSON types; written into the file.
        data: measure on it (what ``--data`` takes).
        limit: on that many units of it, drawn with ``seed``.
        seed: of ``limit``.
        tolerance: largest difference between onnxruntime and torch, as a share of the largest output.
        raw: makes other bytes of the same function, given the metadata, for runtimes that read no plain ONNX.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        ExportError: numbers that are not finite, or runtimes that disagree; nothing is written.
    """
    notes = source.opened.provenance(recipe)
    checked = with_provenance(graph, notes)
    require_finite(checked)
    content = checked.raw if raw is None else raw(notes)
    require_same(checked, source, tolerance, None if raw is None else content)
    found = None
    if data is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            file.write_bytes(checked.raw)
            found = evaluate(file, data, bundle=source.path, limit=limit, seed=seed, progress=progress)
            found = replace(found, model=str(out))
    write_file(out, content)
    mine, teacher = replace(costs(checked), bytes=len(content)), costs(source.graph)
    return Written(Path(out), len(content), mine, teacher, source.opened.bundle.identity, found)


def require_finite(graph: Graph) -> None:
    """Refuse weights that are not finite.

    Raises:
        ExportError: the text names the tensor.
    """
    for name, array in graph.initializers.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ExportError(f"{graph.where}: tensor {name!r}", "numbers that are not finite", "finite ones")


def require_same(graph: Graph, source: Source, tolerance: float, written: bytes | None = None) -> None:
    """Refuse a graph whose ends are not the teacher's, or that onnxruntime and torch run differently.

    With onnxruntime's default optimisations it must run too; with those, integer kernels of older processors saturate
    in between, so that only numbers that are not finite are refused, but for other bytes.

    Args:
        graph: the compressed one.
        source: its bundle; the inputs are those of its probe, or noise where it has none.
        tolerance: as of :func:`finish`.
        written: other bytes of the same function, which onnxruntime runs with its default optimisations.

    Raises:
        ExportError: the text has the difference.
    """
    for name in ("inputs", "outputs"):
        ours, theirs = (_ends(getattr(one, name)) for one in (graph, source.graph))
        if ours != theirs:
            raise ExportError(graph.where, f"{name} {ours}", f"the teacher's, {theirs}")
    given = _inputs(source)
    plain = OrtGraph(graph, threads=1, dynamic_batch=True).run(given)
    default = _by_default(graph, graph.raw if written is None else written, given)
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    with torch.no_grad():
        expected = TorchGraph(graph).run(tensors, list(plain))
    for name, wanted in expected.items():
        _require_close(f"{graph.where}: output {name!r}", plain[name], wanted.numpy(), tolerance)
        loose = tolerance if written is not None else math.inf
        _require_close(f"{graph.where}: output {name!r}, as written", default[name], wanted.numpy(), loose)


def _by_default(graph: Graph, written: bytes, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of onnxruntime's default; a graph of a fixed batch gets some units again to fill it."""
    count, group = len(next(iter(given.values()))), fixed_batch(graph) or 1
    whole = {name: np.resize(array, (-(-count // group) * group, *array.shape[1:])) for name, array in given.items()}
    return {name: found[:count] for name, found in OrtGraph(graph, threads=1, written=written).run(whole).items()}


def _require_close(where: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    wanted = expected.astype(np.float64)
    size = float(np.abs(wanted).max(initial=0.0))
    gap = float(np.abs(found.astype(np.float64) - wanted).max(initial=0.0))
    if not (np.isfinite(found).all() and gap <= tolerance * max(size, 1e-6)):
        raise ExportError(
            where,
            f"a difference of {gap:.3g} between onnxruntime and torch, of outputs up to {size:.3g}",
            f"at most {tolerance:g} of it",
            "One of the two runs an operator of this graph differently: please report it with the model.",
        )


def _ends(values: Sequence[Value]) -> list[tuple[str, str, int]]:
    return [(value.name, value.dtype, len(value.shape)) for value in values]


def _inputs(source: Source) -> dict[str, np.ndarray]:
    """The probe's inputs, or noise."""
    bundle = source.opened.bundle
    if bundle.manifest.model.probe is not None:
        tensors = bundle.probe_tensors()
        return {
            value.name: np.array(tensors[f"input.{number}"].astype(value.dtype))
            for number, value in enumerate(source.graph.inputs)
        }
    generator = np.random.default_rng(0)
    sizes = {
        value.name: [2, *(size if isinstance(size, int) else 1 for size in value.shape[1:])]
        for value in source.graph.inputs
    }
    return {value.name: generator.random(sizes[value.name]).astype(value.dtype) for value in source.graph.inputs}
