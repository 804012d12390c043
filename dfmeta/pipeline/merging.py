"""Merging shards: into a bundle, which is published, or into a larger shard, which is not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfmeta.errors import MergeError
from dfmeta.pipeline.gathering import Progress
from dfmeta.pipeline.outputs import require_free
from dfmeta.pipeline.recording import ShardWritten
from dfmeta.pipeline.release import Published, Publishing, Release, publish
from dfmeta.records import DEFAULT_MIN_UNITS, DifferentialPrivacy, Gathered, RecordPlan, fit_gathered, make_plan
from dfmeta.records.privacy import require_whole
from dfmeta.records.shards import Part, Shard, merge_shards
from dfmeta.schema import v1


def merge(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    presets: Sequence[str] | None = None,
    budget_bytes: int | None = None,
    dp_rho: float | None = None,
    release: Release | None = None,
    min_units: int = DEFAULT_MIN_UNITS,
    suppress: bool = False,
    allow_duplicates: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Published:
    """Add shards up and publish the sum. What is small, is judged by all shards together.

    Args:
        shards: folders that :func:`record_shard` wrote; their order does not matter.
        out: the bundle's folder; must not exist.
        presets: publish only these of what the shards hold; None for all of it.
        budget_bytes: keep fewer pairs, and second moments more coarsely, so that the planned sidecar takes no more.
        dp_rho: publish noised records only, with this budget of zCDP; the shards must have been recorded with a
            clipping norm.
        release: what to say about it.
        min_units: the smallest class that may be published.
        suppress: withhold smaller classes instead of refusing.
        allow_duplicates: let units pass whose very bytes are in two shards.
        seed: of the probe.
        progress: called with stage, shards done, shards in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        MergeError: shards that do not belong together, overlap, or do not hold a preset; or a published bundle.
        BundleError, SchemaError: a path that holds no shard, or one that is damaged.
        DataError: classes that are too small to be published.
    """
    publishing = Publishing(release or Release(), min_units, suppress)
    return merge_with(
        shards,
        out,
        publishing,
        presets=presets,
        budget_bytes=budget_bytes,
        dp_rho=dp_rho,
        allow_duplicates=allow_duplicates,
        seed=seed,
        progress=progress,
    )


def merge_with(
    shards: Sequence[str | Path],
    out: str | Path,
    publishing: Publishing,
    *,
    presets: Sequence[str] | None = None,
    budget_bytes: int | None = None,
    dp_rho: float | None = None,
    allow_duplicates: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Published:
    """:func:`merge`, with the options of publishing in one piece."""
    require_free(out)
    told = _told(progress, len(shards))
    shard = merge_shards(shards, allow_duplicates=allow_duplicates, progress=told)
    gathered = shard.portion.gathered
    if presets is not None:
        gathered = chosen(gathered, make_plan(shard.graph, presets), ",".join(presets))
    configuration = shard.configuration
    if dp_rho is not None:
        require_whole(next((part.limit for part in shard.parts if part.limit is not None), None))
        privacy = DifferentialPrivacy(dp_rho, configuration.clip, configuration.batch_size)
        publishing = replace(publishing, privacy=privacy)
    if budget_bytes is not None:
        gathered = fit_gathered(gathered, budget_bytes)
    return publish(
        out,
        shard.graph,
        publishing.recording(gathered, budget_bytes),
        inputs=configuration.inputs,
        release=publishing.release,
        split=_same(part.split for part in shard.parts),
        label_names=configuration.label_names,
        classes=configuration.classes,
        seed=seed,
        limit=_limit(shard.parts),
        engine=_engine(shard.parts),
    )


def merge_into_shard(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    name: str,
    allow_duplicates: bool = False,
    progress: Progress | None = None,
) -> ShardWritten:
    """Add shards up to a larger one, as one step of a tree.

    Args:
        shards: folders that :func:`record_shard` wrote; their order does not matter.
        out: the new shard's folder; must not exist.
        name: what to call it.
        allow_duplicates: let units pass whose very bytes are in two shards.
        progress: called with stage, shards done, shards in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        MergeError: shards that do not belong together or overlap; or a published bundle.
        BundleError, SchemaError: a path that holds no shard, or one that is damaged.
    """
    require_free(out)
    told = _told(progress, len(shards))
    shard: Shard = merge_shards(shards, name=name, allow_duplicates=allow_duplicates, progress=told)
    shard.write(out)
    return ShardWritten.of(out, shard)


def chosen(gathered: Gathered, plan: Sequence[RecordPlan], presets: str) -> Gathered:
    """Those of the gathered statistics that a plan asks for, in the order in which they were gathered.

    Raises:
        MergeError: one that was not gathered.
    """
    asked = {_key(entry): entry for entry in plan}
    missing = [entry for key, entry in asked.items() if key not in {_key(held) for held in gathered.plan}]
    if missing:
        entry = missing[0]
        raise MergeError(
            "shards",
            f"no {entry.kind} of {entry.site.label!r}",
            f"everything that {presets} asks for",
            "Record the shards with that preset, or publish what they hold (without --preset).",
        )
    kept = [pair for pair in zip(gathered.plan, gathered.accumulators, strict=True) if _key(pair[0]) in asked]
    part = copy.copy(gathered)
    # Rows by class only where the presets ask for them, whatever else the shards were recorded for.
    part.plan = tuple(replace(entry, by_class=entry.by_class and asked[_key(entry)].by_class) for entry, _ in kept)
    part.accumulators = [accumulator for _, accumulator in kept]
    return part


def _key(entry: RecordPlan) -> tuple[Any, ...]:
    """What makes two plans ask for the same statistic; its rank and form were settled when it was gathered."""
    # Sites by value: their ids are numbers in a plan, and this is another plan.
    return entry.site.value, entry.paired.value if entry.paired else None, *entry.identity[2:]


def _told(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress("merge", done, total, 0.0)


def _same(values: Any) -> Any:
    """The value that all have; None where they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _limit(parts: Sequence[Part]) -> int | None:
    """How many units were drawn in all, where every part is of a draw."""
    return sum(part.units for part in parts) if all(part.limit is not None for part in parts) else None


def _engine(parts: Sequence[Part]) -> v1.Engine:
    """What ran the graph; all of them, where parts were recorded differently."""
    engines = [part.engine for part in parts]

    def joined(values: list[str | None]) -> str:
        return ", ".join(sorted({value for value in values if value}))

    return v1.Engine(
        name=joined([engine.name for engine in engines]),
        version=joined([engine.version for engine in engines]),
        provider=joined([engine.provider for engine in engines]) or None,
    )
