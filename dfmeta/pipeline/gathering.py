"""One pass over data, or over a part of it: what is taken, and how it goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dfmeta import report
from dfmeta.data import Batch, DataSource, feed, open_data
from dfmeta.errors import DataError, GraphError
from dfmeta.graph import Graph
from dfmeta.pipeline.inputs import class_count, graph_inputs
from dfmeta.records import (
    DEFAULT_MEMORY_LIMIT,
    DEFAULT_RANK,
    Features,
    RecordPlan,
    left_out,
    make_plan,
    private_plan,
)
from dfmeta.records.gathered import Clip
from dfmeta.records.presets import preset_name
from dfmeta.records.recorder import Engine, choose_engine, engine_words
from dfmeta.records.shard_configuration import Configuration, kind_versions
from dfmeta.records.shard_portion import Portion
from dfmeta.records.shards import Part
from dfmeta.schema import v1

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Gathering:
    """What is taken from the data, and how.

    Attributes:
        presets: what to record (:data:`dfmeta.records.PRESETS`).
        preprocessing: from stored images to the model's input; published, and applied by everyone afterwards.
        by_class: also one row for each class, where a preset has any: that needs labels.
        rank: eigenpairs that each ``spectrum`` keeps.
        at: only these of the presets' sites, by value name or label; None for all.
        features, form, storage, budget_bytes: see :func:`dfmeta.records.make_plan`.
        exact: float64 from the activations on; slower, and hardly different.
        batch_size: units in a forward pass.
        seed: of ``limit`` and of the probe.
        limit: record that many units, drawn with ``seed``.
        clip: see :class:`dfmeta.records.Gathered`.
        device: where the graph runs: ``cpu``, ``cuda`` or ``cuda:N``.
        engine: ``onnxruntime`` or ``torch``; None for the one that suits the device.
    """

    presets: Sequence[str] = ("all-layers", "spectral")
    preprocessing: Sequence[v1.Op] = ()
    by_class: bool = True
    rank: int = DEFAULT_RANK
    at: Sequence[str] | None = None
    batch_size: int = 256
    seed: int = 0
    limit: int | None = None
    clip: Clip | None = None
    device: str = "cpu"
    engine: Engine | None = None
    features: Features | None = None
    form: str | None = None
    storage: str | None = None
    budget_bytes: int | None = None
    exact: bool = False

    def plan(self, graph: Graph, classes: int | None) -> tuple[RecordPlan, ...]:
        """What will be recorded where.

        Raises:
            DataError, GraphError, UnknownName: options that do not fit the model.
        """
        # Noising needs a second copy of everything.
        limit = DEFAULT_MEMORY_LIMIT if self.clip is None else DEFAULT_MEMORY_LIMIT // 2
        return make_plan(
            graph,
            self.presets,
            rank=self.rank,
            at=self.at,
            features=self.features,
            form=self.form,
            storage=self.storage,
            budget_bytes=self.budget_bytes,
            classes=classes,
            memory_limit=limit,
            exact=self.exact,
        )


@dataclass(frozen=True)
class Job:
    """Everything that decides what a pass over the data gives.

    Attributes:
        graph: the model as it will ship.
        source: the open data.
        inputs: the model's inputs, with their preprocessing.
        plan: what is recorded where.
        classes: how many there are; None for records over all units only.
        gathering: the options.
    """

    graph: Graph
    source: DataSource
    inputs: tuple[v1.Input, ...]
    plan: tuple[RecordPlan, ...]
    classes: int | None
    gathering: Gathering

    @property
    def batch_count(self) -> int:
        """How many batches the data has; they are never cut."""
        return -(-self.source.count // self.gathering.batch_size)

    @cached_property
    def configuration(self) -> Configuration:
        """What other portions must have in common with this one to be added to it."""
        clip, names = self.gathering.clip, self.source.label_names
        return Configuration(
            graph_sha256=self.graph.sha256,
            inputs=self.inputs,
            plan=self.plan,
            kinds=kind_versions(self.plan),
            classes=self.classes,
            label_names=tuple(names) if names else None,
            batch_size=self.gathering.batch_size,
            clip=dict(clip) if isinstance(clip, Mapping) else clip,
            exact=self.gathering.exact,
        )

    @cached_property
    def engine(self) -> v1.Engine:
        """The software that runs the graph."""
        return engine_words(self.gathering.engine, self.gathering.device)

    def identity(self, batches: range) -> dict[str, Any]:
        """Everything that a checkpoint must agree on, in JSON types."""
        source = self.source
        return {
            **self.configuration.words,
            "data": {"name": source.name, "split": source.split, "units": source.count},
            "limit": self.gathering.limit,
            "seed": self.gathering.seed,
            "batches": [batches.start, batches.stop],
            "engine": self.engine.model_dump(mode="json"),
        }

    def part(self, name: str, portion: Portion, batches: range) -> Part:
        """What a shard says of the units behind it."""
        return Part(
            name=name,
            fingerprint=portion.fingerprint,
            units=portion.units,
            source=self.source.name,
            split=self.source.split,
            limit=self.gathering.limit,
            seed=self.gathering.seed,
            first_batch=batches.start,
            last_batch=batches.stop,
            batches=self.batch_count,
            engine=self.engine,
        )

    def read(self, batches: range) -> Iterator[Batch]:
        """Those batches of the data, as the model reads them; the others are not decoded."""
        units = slice(batches.start * self.gathering.batch_size, batches.stop * self.gathering.batch_size)
        labels = None if self.source.labels is None else self.source.labels[units]
        source = replace(self.source, indices=self.source.indices[units], labels=labels)
        return feed(source, self.inputs, self.gathering.batch_size)

    def units(self, batches: range) -> int:
        """How many units those batches hold."""
        size = self.gathering.batch_size
        return min(batches.stop * size, self.source.count) - min(batches.start * size, self.source.count)


def plan_facts(graph: Graph, gathering: Gathering) -> dict[str, Any]:
    """What would be recorded, and how large it would be: see :func:`dfmeta.report.plan_facts`.

    Raises:
        DataError, GraphError, UnknownName: options that do not fit the model, or a budget that no plan fits.
    """
    plan, classes = _planned(graph, gathering, labelled=True)
    missed = left_out(graph) if "calibration" in map(preset_name, gathering.presets) else ()
    return report.plan_facts(plan, classes, gathering.budget_bytes, missed)


def _planned(graph: Graph, gathering: Gathering, *, labelled: bool) -> tuple[tuple[RecordPlan, ...], int | None]:
    """What will be recorded, and the number of classes that are kept apart; None where there is no need or no way.

    Args:
        graph: the model.
        gathering: the options.
        labelled: whether each unit will have a class.

    Raises:
        GraphError: records by class of a model that is no classifier.
    """
    if not (gathering.by_class and labelled):
        return gathering.plan(graph, None), None
    try:
        classes = class_count(graph)
    except GraphError:
        plan = gathering.plan(graph, None)
        if any(entry.by_class for entry in plan):
            raise
        return plan, None
    return gathering.plan(graph, classes), classes


def make_job(graph: Graph, data: DataSource | str, gathering: Gathering) -> Job:
    """Check everything that can be checked before the work.

    Raises:
        DataError, GraphError, UnknownName: options that do not fit the data or the model.
    """
    limit, seed = gathering.limit, gathering.seed
    source = open_data(data, limit=limit, seed=seed) if isinstance(data, str) else data
    if source.count == 0:
        raise DataError(source.name, "no units", "at least one")
    if gathering.batch_size < 1:
        raise DataError("batch size", str(gathering.batch_size), "1 or more")
    choose_engine(gathering.engine, gathering.device)
    inputs = tuple(graph_inputs(graph, gathering.preprocessing))
    plan, classes = _planned(graph, gathering, labelled=source.labels is not None)
    if gathering.by_class and source.labels is None and any(entry.by_class for entry in plan):
        fix = "Add y to the data, or record without classes (--no-classes)."
        raise DataError(source.name, "no labels", "one class for each unit", fix)
    if gathering.clip is not None:
        # Refuses a preset that cannot be noised before the work; what it leaves out is left out, and named, at the end.
        private_plan(plan, gathering.presets)
    return Job(graph, source, inputs, plan, classes, gathering)
