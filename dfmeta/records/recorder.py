"""The recorder: runs the shipped graph over batches and keeps statistics, in memory that does not grow.

with Recorder(graph, make_plan(graph, ["all-layers"]), classes=10) as recorder:
    for images, labels in loader:
        recorder.update(images, labels)
recording = recorder.finish()
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from dfmeta.errors import DataError, StepError
from dfmeta.graph import Graph, OrtGraph, TorchGraph
from dfmeta.records.gathered import DEFAULT_MEMORY_LIMIT, Clip, Gathered
from dfmeta.records.plan import RecordPlan
from dfmeta.records.publication import DEFAULT_MIN_UNITS, Recording, publication
from dfmeta.records.workers import Workers
from dfmeta.schema import v1

# Each works on a statistic of its own, and needs room for that.
MOST_WORKERS = 8
Engine = Literal["onnxruntime", "torch"]


class Recorder:
    """Takes the planned records while one's own loop feeds it.

    Args:
        graph: the very graph that ships.
        plan: what to record (see :func:`dfmeta.records.make_plan`).
        classes: number of classes; None records over all units only.
        min_units: classes with fewer units are not published.
        suppress: withhold such classes (with complementary suppression) instead of refusing to finish.
        threads: of onnxruntime, and statistics that are worked on at a time; None for onnxruntime's and torch's choice.
        memory_limit: bytes that the statistics may take while they are gathered; 12 GiB unless told.
        clip: see :class:`dfmeta.records.Gathered`.
        device: where the graph runs: ``cpu``, ``cuda`` or ``cuda:N``. Its values come to the CPU, where they are
            added up in float64.
        engine: ``onnxruntime`` (CPU only) or ``torch``; None for the first on the CPU and the second elsewhere.
        exact: turn activations into float64 before anything is done with them. Otherwise sums over one batch may be
            formed in float32, within 1e-6 of that.

    Raises:
        DataError: the statistics would need more memory than that; no such device; or an engine that is not for it.
        GraphError: a graph that does not run, or without a planned site.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Sequence[RecordPlan],
        *,
        classes: int | None = None,
        min_units: int = DEFAULT_MIN_UNITS,
        suppress: bool = False,
        threads: int | None = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        clip: Clip | None = None,
        device: str = "cpu",
        engine: Engine | None = None,
        exact: bool = False,
    ) -> None:
        chosen = choose_engine(engine, device)
        self.gathered = Gathered(plan, classes=classes, memory_limit=memory_limit, clip=clip)
        self.graph, self.classes = graph, classes
        self.min_units, self.suppress, self._exact = min_units, suppress, exact
        self.sites = tuple({site.id: site for entry in plan for site in entry.sites}.values())
        given = {value.name for value in graph.inputs}
        tapped = [site.value for site in self.sites if site.value not in given]
        self._session: _Onnxruntime | _Torch | None = (
            _Torch(graph, tapped, device) if chosen == "torch" else _Onnxruntime(graph, tapped, threads)
        )
        self._workers = Workers(min(threads or torch.get_num_threads(), MOST_WORKERS, len(plan)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        self._workers.close()

    def update(self, inputs: np.ndarray | Mapping[str, np.ndarray], labels: np.ndarray | None = None) -> None:
        """Run one batch through the graph and take it in.

        Args:
            inputs: the model's input ``[n, ...]``, or one array for each input by name.
            labels: ``[n]`` int class indices; needed when there are classes.

        Raises:
            DataError: no units; labels missing, of the wrong length or out of range; inputs of different lengths.
            GraphError: inputs that do not fit the graph.
            StepError: a NaN or infinity at a site; or the recorder's ``with`` block has been left.
        """
        if self._session is None:
            raise StepError("recorder", "a batch after it was closed", "batches inside its with block")
        given = inputs if isinstance(inputs, Mapping) else {self.graph.inputs[0].name: inputs}
        units = _units(given)
        group = self._groups(labels, units)
        values = self._session.run(given)
        dtype = torch.float64 if self._exact else None
        tensors = {site.id: values[site.value].to("cpu", dtype) for site in self.sites}
        self.gathered.update(tensors, group, self._workers)

    def finish(self) -> Recording:
        """The records of everything seen so far.

        Raises:
            DataError: nothing was seen; or a class has fewer than ``min_units`` units and ``suppress`` is off.
        """
        return publication(self.gathered, min_units=self.min_units, suppress=self.suppress)

    def _groups(self, labels: np.ndarray | None, units: int) -> Tensor:
        if self.classes is None:
            return torch.zeros(units, dtype=torch.int64)
        if labels is None:
            raise DataError(
                "labels",
                "none",
                f"one class in 0..{self.classes - 1} for each unit",
                "Give labels, or record without classes (--no-classes).",
            )
        group = np.asarray(labels)
        if group.shape != (units,) or group.dtype.kind not in "iu":
            raise DataError("labels", f"{group.dtype} {list(group.shape)}", f"integers [{units}]")
        if not 0 <= group.min() <= group.max() < self.classes:
            raise DataError(
                "labels",
                f"values in {group.min()}..{group.max()}",
                f"0..{self.classes - 1}",
                "Check that the labels are those of this model.",
            )
        return torch.from_numpy(group.astype(np.int64))


class _Onnxruntime:
    """The graph's values by onnxruntime."""

    def __init__(self, graph: Graph, tapped: Sequence[str], threads: int | None) -> None:
        self._graph = OrtGraph(graph, tapped, threads=threads, dynamic_batch=True)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        values = {**self._graph.run(inputs), **inputs}
        return {name: torch.from_numpy(value) for name, value in values.items()}


class _Torch:
    """The graph's values by torch, on any device."""

    def __init__(self, graph: Graph, tapped: Sequence[str], device: str) -> None:
        self._graph = TorchGraph(graph).to(device).eval()
        self._tapped, self._device = list(tapped), device

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        try:
            given = {name: torch.from_numpy(value).to(self._device) for name, value in inputs.items()}
            with torch.no_grad():
                return {**self._graph.run(given, self._tapped), **given}
        except torch.OutOfMemoryError as error:
            fix = "Try a smaller --batch-size."
            raise StepError(self._device, "not enough memory", "room for one batch", fix) from error


def choose_engine(engine: Engine | None, device: str) -> Engine:
    """What runs the graph there.

    Raises:
        DataError: a device that is not there, or an engine that does not run on it.
    """
    where = torch.device(device) if device == "cpu" or device.partition(":")[0] == "cuda" else None
    if where is None:
        raise DataError("device", repr(device), "cpu, cuda or cuda:N")
    if where.type == "cuda" and not (where.index or 0) < torch.cuda.device_count():
        found = f"{device!r}, and {torch.cuda.device_count()} CUDA devices here"
        raise DataError("device", found, "a device that is there", "Record on the CPU (--device cpu).")
    if where.type == "cuda" and engine == "onnxruntime":
        raise DataError("engine", f"'onnxruntime' for {device!r}", "'torch', which is the one that runs there")
    return engine or ("onnxruntime" if where.type == "cpu" else "torch")


def engine_words(engine: Engine | None, device: str) -> v1.Engine:
    """The same for a manifest: name, version and provider."""
    chosen = choose_engine(engine, device)
    if chosen == "onnxruntime":
        version = importlib.metadata.version("onnxruntime")
        return v1.Engine(name="onnxruntime", version=version, provider="CPUExecutionProvider")
    return v1.Engine(name="torch", version=str(torch.__version__), provider=torch.device(device).type)


def _units(inputs: Mapping[str, np.ndarray]) -> int:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
        raise DataError("inputs", f"units {found}", "the same number in each input")
    units = next(iter(counts.values()))
    if not units:
        raise DataError("inputs", "a batch of 0 units", "at least one", "Leave empty batches out.")
    return units
