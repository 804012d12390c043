"""One pass over data, or over a part of it: what is taken, and how it goes on after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dfmeta import report
from dfmeta.data import Batch, DataSource, feed, open_data
from dfmeta.errors import DataError, MergeError
from dfmeta.graph import Graph
from dfmeta.pipeline.inputs import class_count, graph_inputs
from dfmeta.records import (
    DEFAULT_MEMORY_LIMIT,
    DEFAULT_RANK,
    Features,
    Recorder,
    RecordPlan,
    left_out,
    make_plan,
    private_plan,
)
from dfmeta.records.gathered import Clip
from dfmeta.records.recorder import Engine, choose_engine, engine_words
from dfmeta.records.shard_checkpoint import Checkpoint
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
        by_class: also one row for each class; needs labels.
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
    classes = class_count(graph) if gathering.by_class else None
    missed = left_out(graph) if "calibration" in gathering.presets else ()
    return report.plan_facts(gathering.plan(graph, classes), classes, gathering.budget_bytes, missed)


def make_job(graph: Graph, data: DataSource | str, gathering: Gathering) -> Job:
    """Check everything that can be checked before the work.

    Raises:
        DataError, GraphError, UnknownName: options that do not fit the data or the model.
    """
    limit, seed = gathering.limit, gathering.seed
    source = open_data(data, limit=limit, seed=seed) if isinstance(data, str) else data
    if source.count == 0:
        raise DataError(source.name, "no units", "at least one")
    if gathering.by_class and source.labels is None:
        fix = "Add y to the data, or record without classes (--no-classes)."
        raise DataError(source.name, "no labels", "one class for each unit", fix)
    if gathering.batch_size < 1:
        raise DataError("batch size", str(gathering.batch_size), "1 or more")
    choose_engine(gathering.engine, gathering.device)
    classes = class_count(graph) if gathering.by_class else None
    inputs = tuple(graph_inputs(graph, gathering.preprocessing))
    plan = gathering.plan(graph, classes)
    if gathering.clip is not None:
        # Refuses a preset that cannot be noised before the work; what it leaves out is left out, and named, at the end.
        private_plan(plan, gathering.presets)
    return Job(graph, source, inputs, plan, classes, gathering)


def gather(
    job: Job,
    batches: range,
    *,
    with_digests: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Portion:
    """What those batches give.

    Args:
        job: what to take.
        batches: contiguous batches of its data.
        with_digests: keep a digest of each unit, as shards do.
        checkpoint: go on from it, and write it on the way.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        DataError, GraphError, StepError: the data does not fit the model, or the model fails on it.
        MergeError: the checkpoint of other work.
    """
    asked = job.gathering
    options: dict[str, Any] = {name: getattr(asked, name) for name in ("clip", "device", "engine", "exact")}
    with Recorder(job.graph, job.plan, classes=job.classes, **options) as recorder:
        portion = Portion(recorder.gathered, with_digests=with_digests)
        done = _resume(job, batches, portion, checkpoint) if checkpoint is not None else batches.start
        names = [entry.name for entry in job.inputs]
        for number, batch in enumerate(job.read(range(done, batches.stop)), done + 1):
            recorder.update(batch.inputs, batch.labels)
            portion.note(batch.inputs, names)
            if checkpoint is not None and checkpoint.due():
                checkpoint.save(number, _digest(batch), portion.state())
            if progress is not None:
                progress("record", job.units(range(batches.start, number)), job.units(batches), 0.0)
    return portion


def _resume(job: Job, batches: range, portion: Portion, checkpoint: Checkpoint) -> int:
    """Take up what was saved; the batch to go on with."""
    saved = checkpoint.load()
    if saved is None:
        return batches.start
    if not batches.start < saved.batch <= batches.stop:
        raise MergeError(str(checkpoint.folder), f"a state after batch {saved.batch}", f"one of {batches}")
    # The data is not part of the checkpoint. One batch of it, read once more, shows most of what may have changed.
    (last,) = job.read(range(saved.batch - 1, saved.batch))
    if _digest(last) != saved.last:
        raise MergeError(
            f"{checkpoint.folder}, batch {saved.batch - 1}",
            "other data than when the checkpoint was written",
            "the same units in the same order",
            "Remove the checkpoint and start again.",
        )
    try:
        portion.restore(saved.arrays)
    except ValueError as error:
        fix = "Remove the checkpoint and start again."
        raise MergeError(
            str(checkpoint.folder), f"a state that does not fit ({error})", "one that does", fix
        ) from error
    return saved.batch


def _digest(batch: Batch) -> str:
    digest = hashlib.sha256()
    for name in sorted(batch.inputs):
        digest.update(np.ascontiguousarray(batch.inputs[name]).tobytes())
    digest.update(b"" if batch.labels is None else batch.labels.tobytes())
    return digest.hexdigest()
