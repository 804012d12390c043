"""How good a model is on labelled data, and how far it agrees with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfmeta.bundle import Bundle
from dfmeta.data import check_labels, feed, open_data
from dfmeta.errors import DataError
from dfmeta.graph import Costs, Graph, OrtGraph, costs
from dfmeta.pipeline.inputs import class_count, graph_inputs
from dfmeta.schema import v1

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What :func:`evaluate` measured, with onnxruntime.

    Attributes:
        model: the file.
        data: the data set and split.
        count: units evaluated.
        accuracy: percent of units whose label the model names; None without labels.
        agreement: percent of units on which model and teacher name the same class; None without a teacher.
        teacher_accuracy: the teacher's accuracy on the same units.
        costs: parameters, MACs for one unit, bytes of the file.
        teacher_costs: the same of the teacher.
    """

    model: str
    data: str
    count: int
    accuracy: float | None
    agreement: float | None
    teacher_accuracy: float | None
    costs: Costs
    teacher_costs: Costs | None


def evaluate(
    model: str | Path,
    data: str,
    *,
    bundle: str | Path | None = None,
    preprocessing: Sequence[v1.Op] | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a model over a data set.

    Args:
        model: ONNX file, such as an exported student.
        data: what ``--data`` takes.
        bundle: the release it came from: gives the preprocessing, and the teacher to agree with.
        preprocessing: in place of the bundle's.
        limit: evaluate that many units, drawn with ``seed``.
        seed: of ``limit``.
        batch_size: units in a forward pass.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        DataError, GraphError, BundleError: see :mod:`dfmeta.errors`.
    """
    graph = Graph.from_file(model)
    release = Bundle.open(bundle) if bundle is not None else None
    teacher = Graph.from_bytes(release.graph_bytes(), f"{bundle}: graph") if release else None
    if preprocessing is None:
        preprocessing = release.manifest.model.inputs[0].preprocessing if release else []
    if teacher is not None:
        _same_task(graph, teacher)
    source = open_data(data, limit=limit, seed=seed)
    labels = source.labels
    if labels is not None:
        check_labels(labels, class_count(graph), source.name)
    runs = [OrtGraph(g, dynamic_batch=True) for g in (graph, teacher) if g is not None]
    guesses: list[list[np.ndarray]] = [[] for _ in runs]
    done = 0
    for batch in feed(source, graph_inputs(graph, preprocessing), batch_size):
        arrays = list(batch.inputs.values())
        for run, found, one in zip(runs, guesses, (graph, teacher), strict=False):
            assert one is not None  # noqa: S101 - a run exists for each graph that does
            named = dict(zip((value.name for value in one.inputs), arrays, strict=True))
            found.append(run.run(named)[one.outputs[0].name].reshape(len(arrays[0]), -1).argmax(1))
        done += len(arrays[0])
        if progress is not None:
            progress("evaluate", done, source.count, 0.0)
    named_classes = [np.concatenate(found) for found in guesses]
    right = [None if labels is None else 100 * float((found == labels).mean()) for found in named_classes]
    return Evaluation(
        model=str(model),
        data=data,
        count=source.count,
        accuracy=right[0],
        agreement=100 * float((named_classes[0] == named_classes[1]).mean()) if teacher else None,
        teacher_accuracy=right[1] if teacher else None,
        costs=costs(graph),
        teacher_costs=costs(teacher) if teacher else None,
    )


def _same_task(graph: Graph, teacher: Graph) -> None:
    ours, theirs = (_inputs(g) for g in (graph, teacher))
    if ours != theirs or class_count(graph) != class_count(teacher):
        raise DataError(
            "--bundle",
            f"a teacher with inputs {theirs} and {class_count(teacher)} classes",
            f"one with {ours} and {class_count(graph)}, as the model has",
            "Give the bundle that the model was made from.",
        )


def _inputs(graph: Graph) -> str:
    return ", ".join(f"{value.dtype} {list(value.shape[1:])}" for value in graph.inputs)
