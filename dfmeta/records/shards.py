"""Shards: what one part of the data gave, whole and in float64. They merge; they are never published.

A shard is a folder with ``dfmeta-shard.json`` (what was recorded, over which units), ``state.safetensors`` (every
accumulator, and a digest of each unit) and ``model.onnx`` (the graph). It tells more of the data than any bundle
does, so only its owner may read it, and nothing that opens bundles opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dfmeta.bundle import Bundle
from dfmeta.errors import BundleError, IntegrityError, MergeError, SchemaError
from dfmeta.graph import Graph
from dfmeta.records.gathered import Gathered
from dfmeta.records.shard_configuration import Configuration, require_same
from dfmeta.records.shard_files import read_arrays, read_document, read_further, write_private
from dfmeta.records.shard_portion import Portion, in_common
from dfmeta.schema import MANIFEST_NAME, SHARD_NAME, v1
from dfmeta.schema.problems import problems_of

GRAPH_NAME = "model.onnx"
NOTICE = (
    "This is the publisher's private file and never part of a release: it holds unrounded sums over the data and a "
    "digest of every unit. Merge it with: dfmeta merge"
)
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


class Part(BaseModel):
    """One stretch of a data set that went into a shard.

    Attributes:
        name: the shard as which it was recorded.
        fingerprint: digest of its units in their order.
        units: how many there are.
        source: the data set's own name.
        split: which split of it.
        limit: how many of its units were drawn, or None for all.
        seed: of that draw.
        first_batch, last_batch: the batches that were recorded, counted from 0, ``last_batch`` left out.
        batches: how many the data set has.
        engine: the software that ran the model.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=f"^{_NAME}$")
    fingerprint: str
    units: int
    source: str
    split: str | None
    limit: int | None
    seed: int
    first_batch: int
    last_batch: int
    batches: int
    engine: v1.Engine


class Document(BaseModel):
    """``dfmeta-shard.json``."""

    model_config = ConfigDict(frozen=True)

    format: Literal["dfmeta-shard"] = "dfmeta-shard"
    version: Literal[1] = 1
    notice: str = NOTICE
    name: str = Field(pattern=f"^{_NAME}$")
    configuration_sha256: str
    configuration: Configuration
    parts: tuple[Part, ...] = Field(min_length=1)
    units: int
    largest_batch: int


@dataclass(slots=True)
class Shard:
    """A shard in memory.

    Attributes:
        name: what it is called; shards are merged in the order of their names.
        configuration: what was recorded, and how.
        parts: over which units.
        portion: what they gave.
        graph: the graph that was run.
    """

    name: str
    configuration: Configuration
    parts: tuple[Part, ...]
    portion: Portion
    graph: Graph

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Shard:
        """Read one, verified.

        Raises:
            MergeError: a published bundle, which is no shard; the text says why it does not merge.
            BundleError, SchemaError: no shard, or one that is damaged.
        """
        return _load(Path(path), *_open(Path(path)))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all, for its owner alone.

        Raises:
            OutputExists: something is at ``path`` already.
            BundleError: the disk refused; nothing is visible then.
        """
        document = Document(
            name=self.name,
            configuration_sha256=self.configuration.sha256,
            configuration=self.configuration,
            parts=self.parts,
            units=self.portion.units,
            largest_batch=self.portion.gathered.largest_batch,
        )
        further = {GRAPH_NAME: self.graph.raw}
        write_private(Path(path), SHARD_NAME, document.model_dump(mode="json"), self.portion.state(), further)


def empty_portion(configuration: Configuration, *, with_digests: bool = True) -> Portion:
    """A portion of no units, to which others of this configuration can be added."""
    gathered = Gathered(configuration.plan, classes=configuration.classes, clip=configuration.clip)
    return Portion(gathered, with_digests=with_digests)


def merge_shards(
    paths: Sequence[str | os.PathLike[str]],
    *,
    name: str = "merged",
    allow_duplicates: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Shard:
    """Add shards up, in the order of their names, whatever the order in which they are given.

    At most two shards are in memory at once.

    Args:
        paths: their folders.
        name: what to call the sum.
        allow_duplicates: let units pass whose very bytes are in two shards: real data can hold them. A part that
            is given twice is refused all the same.
        progress: called with the number of shards that have been added.

    Raises:
        MergeError: no shard; shards of different configurations; units or whole parts in common; a bundle.
        BundleError, SchemaError: a path that holds no shard, or one that is damaged.
    """
    if not paths:
        raise MergeError("merge", "no shard", "at least one")
    opened = sorted((_Opened(Path(path), *_open(Path(path))) for path in paths), key=lambda each: each.order)
    _require_same_configuration(opened)
    _require_different_parts(opened)
    total: Shard | None = None
    for number, each in enumerate(opened):
        shard = _load(each.path, each.document, each.raw)
        if total is None:
            total = shard
        else:
            if not allow_duplicates:
                _require_different_units(each.path, shard, total)
            total.portion.merge(shard.portion)
            total.parts += shard.parts
        if progress is not None:
            progress(number + 1)
    if total is None:
        raise MergeError("merge", "no shard", "at least one")
    total.name = name
    return total


@dataclass(frozen=True, slots=True)
class _Opened:
    path: Path
    document: Document
    raw: dict[str, Any]

    @property
    def order(self) -> tuple[str, tuple[str, ...]]:
        return self.document.name, tuple(part.fingerprint for part in self.document.parts)


def _open(path: Path) -> tuple[Document, dict[str, Any]]:
    if not os.path.lexists(path / SHARD_NAME) and os.path.lexists(path / MANIFEST_NAME):
        raise _published(path)
    try:
        raw = read_document(path, SHARD_NAME)
    except IntegrityError:
        raise
    except BundleError as error:
        fix = "Give the folders that dfmeta record --shard wrote."
        raise BundleError(error.where, error.found, f"a shard with its {SHARD_NAME}", fix) from error
    where = str(path / SHARD_NAME)
    try:
        document = Document.model_validate(raw)
    except ValidationError as error:
        raise SchemaError(where, problems_of(error)) from None
    if document.configuration.sha256 != document.configuration_sha256:
        raise IntegrityError(where, "a configuration that was changed", "the one that was recorded", "Record it again.")
    return document, raw


def _load(path: Path, document: Document, raw: dict[str, Any]) -> Shard:
    portion = empty_portion(document.configuration)
    try:
        portion.restore(read_arrays(path, raw))
    except ValueError as error:
        fix = "Read it with the version of dfmeta that wrote it, or record it again."
        raise BundleError(str(path), f"a state that does not fit its plan ({error})", "one that does", fix) from error
    where = str(path / GRAPH_NAME)
    graph = Graph.from_bytes(read_further(path, raw, GRAPH_NAME), where)
    wanted = document.configuration.graph_sha256
    if graph.sha256 != wanted:
        raise IntegrityError(where, f"sha256 {graph.sha256[:16]}…", f"{wanted[:16]}…, the graph that was recorded")
    return Shard(document.name, document.configuration, document.parts, portion, graph)


def _published(path: Path) -> MergeError:
    """Why a bundle is no shard."""
    manifest = Bundle.open(path).manifest
    truncated = {record.kind for record in manifest.records if not record.mergeable}
    reasons = []
    privacy = manifest.privacy
    if privacy is not None and privacy.differential_privacy is not None:
        reasons.append("noise was added to them")
    if privacy is not None and privacy.suppression != "none":
        reasons.append("small classes were suppressed")
    if truncated and not reasons:
        reasons.append(f"{' and '.join(sorted(truncated))} records were truncated or rounded")
    reasons = reasons or ["they were rounded, and do not say over which units they were taken"]
    return MergeError(
        str(path),
        f"published records, which do not merge: {', and '.join(reasons)}",
        "shards, which hold everything that was gathered",
        "Record each part of the data with dfmeta record --shard, and merge those.",
    )


def _require_same_configuration(opened: Sequence[_Opened]) -> None:
    first = opened[0]
    for each in opened[1:]:
        if each.document.configuration_sha256 != first.document.configuration_sha256:
            mine, theirs = each.document.configuration, first.document.configuration
            require_same(str(each.path), mine.words, str(first.path), theirs.words)


def _require_different_parts(opened: Sequence[_Opened]) -> None:
    seen: dict[str, _Opened] = {}
    for each in opened:
        for part in each.document.parts:
            if part.units and part.fingerprint in seen:
                other = seen[part.fingerprint].path
                raise MergeError(
                    str(each.path),
                    f"the {part.units} units of part {part.name!r}, which are all in {other} too",
                    "parts that are each given once",
                    "Leave one of the two out.",
                )
            seen[part.fingerprint] = each


def _require_different_units(path: Path, shard: Shard, total: Shard) -> None:
    twice = in_common(shard.portion.digests, total.portion.digests)
    if twice:
        names = ", ".join(part.name for part in total.parts[:8])
        raise MergeError(
            str(path),
            f"{twice} of its {shard.portion.units} units in another shard too ({names})",
            "no unit in two shards",
            "Leave one of the shards out; or let equal units pass (--allow-duplicates), if the data really has them.",
        )
