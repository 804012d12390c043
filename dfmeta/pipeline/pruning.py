"""From a bundle alone to a graph of fewer channels or many zeros."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from dfmeta.compress import prune as step
from dfmeta.pipeline.closed_form import Progress, Written, finish, open_source, stages

Config = step.Config


@dataclass(frozen=True, slots=True)
class Pruned:
    """What :func:`prune` wrote.

    Attributes:
        written: the file, its costs and the teacher's, and what was measured.
        config: the settings.
        groups: every group of channels; none where only zeros were asked for.
        operators: every weight operator that was changed.
        sparse_bytes: nominal size of the changed weights, each once, if zeros were not stored.
        dense_bytes: their size as stored.
    """

    written: Written
    config: step.Config
    groups: tuple[step.PrunedGroup, ...]
    operators: tuple[step.PrunedOperator, ...]
    sparse_bytes: int
    dense_bytes: int


def prune(
    bundle: str | Path,
    out: str | Path,
    *,
    config: step.Config,
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Pruned:
    """Prune a bundle's graph by its records and write it as ONNX, or write nothing.

    Args:
        bundle: its folder; of the data only its records are looked at.
        out: ONNX file to write; must not exist.
        config: how far to go, and how.
        data: measure on it (what ``--data`` takes); changes nothing in the file.
        limit: on that many units of it, drawn with ``seed``.
        seed: of ``limit``; nothing else is random.
        progress: called with stage, steps done, steps in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        DataError: settings out of range.
        StepError: records that are missing, channels that cannot be cut, or a goal that cannot be reached.
        BundleError, GraphError, ExportError, UnknownName: see :mod:`dfmeta.errors`.
    """
    step.check(config)
    source = open_source(bundle, out)
    found = step.run(source.graph, source.records, config, stages(progress))
    recipe = {"step": "prune", **asdict(config)}
    written = finish(source, found.graph, out, recipe, data=data, limit=limit, seed=seed, progress=progress)
    once = {one.weight: one for one in found.operators}.values()
    sizes = sum(one.sparse_bytes for one in once), sum(one.dense_bytes for one in once)
    return Pruned(written, config, found.groups, found.operators, *sizes)
