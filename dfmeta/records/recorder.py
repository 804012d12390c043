"""The recorder: runs the shipped graph over batches and keeps statistics, in memory that does not grow.

with Recorder(graph, make_plan(graph, ["all-layers"]), classes=10) as recorder:
    for images, labels in loader:
        recorder.update(images, labels)
recording = recorder.finish()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dfmeta.errors import DataError, StepError
from dfmeta.graph import Graph, OrtGraph
from dfmeta.records.gathered import DEFAULT_MEMORY_LIMIT, Gathered
from dfmeta.records.plan import RecordPlan, SitePlan
from dfmeta.records.publication import DEFAULT_MIN_UNITS, Recording, publication


class Recorder:
    """Takes the planned records while one's own loop feeds it.

    Args:
        graph: the very graph that ships.
        plan: what to record (see :func:`dfmeta.records.make_plan`).
        classes: number of classes; None records over all units only.
        min_units: classes with fewer units are not published.
        suppress: withhold such classes (with complementary suppression) instead of refusing to finish.
        threads: onnxruntime threads; None for its own choice.
        memory_limit: bytes that the statistics may take while they are gathered; 12 GiB unless told.

    Raises:
        DataError: the statistics would need more memory than that.
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
    ) -> None:
        self.gathered = Gathered(plan, classes=classes, memory_limit=memory_limit)
        self.graph, self.classes = graph, classes
        self.min_units, self.suppress = min_units, suppress
        self.sites = tuple({site.id: site for entry in plan for site in entry.sites}.values())
        self._given = {value.name for value in graph.inputs}
        tapped = [site.value for site in self.sites if site.value not in self._given]
        self._session: OrtGraph | None = OrtGraph(graph, tapped, threads=threads, dynamic_batch=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

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
        values = {**self._session.run(given), **given}
        tensors = {site.id: self._finite(site, values[site.value]) for site in self.sites}
        self.gathered.update(tensors, group)

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

    def _finite(self, site: SitePlan, value: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(value)
        if not bool(torch.isfinite(tensor).all()):
            raise StepError(
                f"site {site.label!r} ({site.value})",
                "NaN or infinity in its activations",
                "finite numbers",
                "Check the input's preprocessing and the model's weights.",
            )
        return tensor


def _units(inputs: Mapping[str, np.ndarray]) -> int:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
        raise DataError("inputs", f"units {found}", "the same number in each input")
    units = next(iter(counts.values()))
    if not units:
        raise DataError("inputs", "a batch of 0 units", "at least one", "Leave empty batches out.")
    return units
