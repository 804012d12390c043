"""Doing a job: on from its checkpoint if there is one, with the other processes if there are any, and to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dfmeta.data import Batch, DataSource
from dfmeta.errors import MergeError
from dfmeta.graph import Graph
from dfmeta.pipeline.distributed import DEFAULT_TIMEOUT, Ranks, local_device, open_ranks
from dfmeta.pipeline.gathering import Gathering, Job, Progress, make_job
from dfmeta.pipeline.outputs import require_free
from dfmeta.records import Recorder
from dfmeta.records.shard_checkpoint import DEFAULT_SECONDS, Checkpoint, checkpoint_of_rank
from dfmeta.records.shard_configuration import require_same
from dfmeta.records.shard_portion import Portion
from dfmeta.records.shards import empty_portion


@dataclass(frozen=True, slots=True)
class Running:
    """How the work is done; nothing of it changes the result.

    Attributes:
        checkpoint: folder in which the state is kept, so that the same call goes on after an interruption.
        checkpoint_seconds: least time between two writings of it; 0 writes after every batch.
        distributed: share the work with the other processes that torchrun started; each must make the same call.
        timeout: seconds to wait for another process.
        progress: called with stage, units done, units in all, and 0.
    """

    checkpoint: str | Path | None = None
    checkpoint_seconds: float = DEFAULT_SECONDS
    distributed: bool = False
    timeout: float = DEFAULT_TIMEOUT
    progress: Progress | None = None


def run(
    graph: Graph,
    data: DataSource | str,
    out: str | Path,
    gathering: Gathering,
    running: Running,
    choose: Callable[[Job], range],
    finish: Callable[[Job, range, Portion], dict[str, Any]],
    *,
    with_digests: bool = False,
) -> dict[str, Any]:
    """Gather with everyone, write on the first rank, and take the checkpoint away.

    Args:
        graph: the model as it will ship.
        data: an open source, or what ``--data`` takes.
        out: what ``finish`` will write; must not exist.
        gathering: what to take, and how.
        running: checkpoints and other processes.
        choose: the batches to take, once the job is known; refuses what would only fail after the work.
        finish: writes what was gathered, on the first rank; gives JSON types.
        with_digests: keep a digest of each unit, as shards do.

    Returns:
        What ``finish`` gave, on every rank.
    """
    with open_ranks(running.distributed, timeout=running.timeout, device=gathering.device) as ranks:
        if ranks.first:
            require_free(out, running.checkpoint)
        job = make_job(graph, data, replace(gathering, device=local_device(gathering.device)))
        batches = choose(job)
        portion, checkpoint = _work(job, batches, ranks, running, with_digests=with_digests)
        facts = ranks.share(lambda: finish(job, batches, portion))
        if checkpoint is not None:
            checkpoint.remove()
    return facts


def _work(
    job: Job, batches: range, ranks: Ranks, running: Running, *, with_digests: bool
) -> tuple[Portion, Checkpoint | None]:
    """Gather these batches with everyone, and add up on the first rank."""
    part = ranks.part(len(batches))
    mine = batches[part.start : part.stop]
    checkpoint = None
    if running.checkpoint is not None:
        folder = checkpoint_of_rank(running.checkpoint, ranks.rank, ranks.size)
        checkpoint = Checkpoint(folder, job.identity(mine), seconds=running.checkpoint_seconds)
    progress = running.progress if ranks.first else None
    portion = gather(job, mine, with_digests=with_digests, checkpoint=checkpoint, progress=progress)
    words = job.configuration.words

    def take(rank: int, theirs: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> None:
        require_same(f"rank {rank}", theirs, "rank 0", words)
        other = empty_portion(job.configuration, with_digests=with_digests)
        other.restore(arrays)
        portion.merge(other)

    ranks.collect(words, portion.state, take)
    return portion, checkpoint


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
