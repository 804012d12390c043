"""Taking records over a data set: alone, over a part of it, or with other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dfmeta.data import DataSource
from dfmeta.errors import DataError
from dfmeta.graph import Graph
from dfmeta.pipeline import leaks
from dfmeta.pipeline.distributed import cut
from dfmeta.pipeline.gathering import Gathering, Job, Progress
from dfmeta.pipeline.release import Published, Publishing, Release, publish
from dfmeta.pipeline.running import Running, run
from dfmeta.records import DEFAULT_MIN_UNITS, DEFAULT_RANK
from dfmeta.records.privacy import require_whole
from dfmeta.records.publication import small_classes
from dfmeta.records.recorder import Engine
from dfmeta.records.shard_portion import Portion
from dfmeta.records.shards import Shard
from dfmeta.schema import v1


@dataclass(frozen=True, slots=True)
class ShardWritten:
    """What :func:`record_shard` or a merge into a larger shard wrote.

    Attributes:
        path: the shard's folder.
        name: the shard.
        units: units behind it.
        parts: shards that went into it, itself included.
        records: number of statistics in it.
        bytes: size of its files.
    """

    path: Path
    name: str
    units: int
    parts: int
    records: int
    bytes: int

    @classmethod
    def of(cls, path: str | Path, shard: Shard) -> ShardWritten:
        """The facts of a shard that lies there."""
        size = sum(file.stat().st_size for file in Path(path).iterdir())
        return cls(Path(path), shard.name, shard.portion.units, len(shard.parts), len(shard.configuration.plan), size)


def record(
    graph: Graph,
    data: DataSource | str,
    out: str | Path,
    *,
    presets: Sequence[str] = ("all-layers", "spectral"),
    preprocessing: Sequence[v1.Op] = (),
    release: Release | None = None,
    by_class: bool = True,
    rank: int = DEFAULT_RANK,
    at: Sequence[str] | None = None,
    min_units: int = DEFAULT_MIN_UNITS,
    suppress: bool = False,
    batch_size: int = 256,
    seed: int = 0,
    limit: int | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
    running: Running | None = None,
    progress: Progress | None = None,
) -> Published:
    """Take records over a data set and publish them with the graph.

    Args:
        graph: the model as it will ship.
        data: an open source, or what ``--data`` takes.
        out: the bundle's folder; must not exist.
        presets: what to record (:data:`dfmeta.records.PRESETS`).
        preprocessing: from stored images to the model's input; published, and applied by everyone afterwards.
        release: what to say about it.
        by_class: also one row for each class, where a preset has any: that needs labels.
        rank: eigenpairs that each ``spectrum`` keeps.
        at: only these of the presets' sites, by value name or label; None for all.
        min_units: the smallest class that may be published.
        suppress: withhold smaller classes instead of refusing.
        batch_size: units in a forward pass.
        seed: of ``limit`` and of the probe.
        limit: record that many units, drawn with ``seed``.
        device: where the graph runs: ``cpu``, ``cuda`` or ``cuda:N``.
        engine: ``onnxruntime`` or ``torch``; None for the one that suits the device.
        running: checkpoints and other processes.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        DataError, GraphError, StepError: the data does not fit the model, or the model fails on it.
        MergeError: the checkpoint of other work.
    """
    gathering = Gathering(
        presets, preprocessing, by_class, rank, at, batch_size, seed, limit, device=device, engine=engine
    )
    publishing = Publishing(release or Release(), min_units, suppress)
    return record_with(graph, data, out, gathering, publishing, _with_progress(running, progress))


def record_with(
    graph: Graph,
    data: DataSource | str,
    out: str | Path,
    gathering: Gathering,
    publishing: Publishing,
    running: Running | None = None,
) -> Published:
    """:func:`record`, with its options in three pieces."""
    # Before the work, and not only after it.
    leaks.require_none(graph, release=asdict(publishing.release))

    def choose(job: Job) -> range:
        _require_units(job, publishing)
        if publishing.privacy is not None:
            require_whole(gathering.limit)
        return range(job.batch_count)

    def finish(job: Job, batches: range, portion: Portion) -> dict[str, Any]:
        published = publish(
            out,
            graph,
            publishing.recording(portion.gathered, gathering.budget_bytes),
            inputs=job.inputs,
            release=publishing.release,
            split=job.source.split,
            label_names=job.configuration.label_names,
            classes=job.classes,
            seed=gathering.seed,
            limit=gathering.limit,
            engine=job.engine,
        )
        return {**asdict(published), "path": str(published.path)}

    facts = run(graph, data, out, gathering, running or Running(), choose, finish)
    return Published(**{**facts, "path": Path(facts["path"]), "left_out": tuple(facts["left_out"])})


def record_shard(
    graph: Graph,
    data: DataSource | str,
    out: str | Path,
    *,
    name: str,
    gathering: Gathering | None = None,
    part: tuple[int, int] = (1, 1),
    running: Running | None = None,
    progress: Progress | None = None,
) -> ShardWritten:
    """Take records over one part of the data, and keep all that was gathered in a private shard.

    Args:
        graph: the model as it will ship.
        data: an open source, or what ``--data`` takes.
        out: the shard's folder; must not exist.
        name: what to call it. Shards are merged in the order of their names.
        gathering: what to take, and how: the same for every shard.
        part: ``(i, n)``: only the i-th of n contiguous runs of whole batches, counted from 1.
        running: checkpoints and other processes.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        DataError, GraphError, StepError: the data does not fit the model, or the model fails on it.
        MergeError: the checkpoint of other work.
    """
    number, parts = part
    if not 1 <= number <= parts:
        raise DataError("part", f"{number}/{parts}", "I/N, with I from 1 to N")

    def choose(job: Job) -> range:
        batches = cut(job.batch_count, number - 1, parts)
        if not batches:
            found = f"no batch of {job.batch_count} for part {number}/{parts}"
            raise DataError(job.source.name, found, "at least one", "Cut into fewer parts, or into smaller batches.")
        return batches

    def finish(job: Job, batches: range, portion: Portion) -> dict[str, Any]:
        shard = Shard(name, job.configuration, (job.part(name, portion, batches),), portion, graph)
        shard.write(out)
        return {**asdict(ShardWritten.of(out, shard)), "path": str(out)}

    running = _with_progress(running, progress)
    facts = run(graph, data, out, gathering or Gathering(), running, choose, finish, with_digests=True)
    return ShardWritten(**{**facts, "path": Path(facts["path"])})


def _require_units(job: Job, publishing: Publishing) -> None:
    """Refuse classes that are too small before the work, where the labels tell, and not only after it."""
    labels = job.source.labels
    if job.classes is None or labels is None or publishing.privacy is not None:
        return
    if len(labels) >= publishing.min_units and 0 <= labels.min() <= labels.max() < job.classes:
        counts = np.bincount(labels, minlength=job.classes).tolist()
        small_classes(counts, publishing.min_units, suppress=publishing.suppress)


def _with_progress(running: Running | None, progress: Progress | None) -> Running:
    running = running or Running()
    return running if progress is None else replace(running, progress=progress)
