"""`prune`: fewer channels, or many exact zeros, with the weights that are left making up for them from records alone.

Channels: of every group that may be cut, those go whose loss the weights that read them can best make up for; those
weights and their biases are then refitted by least squares, as He et al. ("Channel Pruning for Accelerating Very Deep
Neural Networks", 2017) do with data. The rise of a reader's error by each channel is that of the structured optimal
brain surgeon (Kurtic et al., "ZipLM", 2023). Zeros: the rule of SparseGPT (Frantar and Alistarh, 2023), N:M or not.

All of it reads second moments and means of what the operators multiply, in the *float* graph: the answer is what the
publisher's data would give. It is exact for the first cut before a layer. After it, the layer's input is not quite what
was recorded, and nothing is recorded again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfmeta import _settings
from dfmeta._settings import Range, within
from dfmeta.compress._cutting import candidates, lost_features, lost_rows, overall, uniform
from dfmeta.compress._operators import bias_values, with_bias, with_weights
from dfmeta.compress._pruning_report import PrunedGroup, PrunedOperator, groups_report, operators_report
from dfmeta.compress._repairing import Indices, Repaired, Sparsity, repaired
from dfmeta.compress._sources import Sources
from dfmeta.errors import DataError, StepError
from dfmeta.graph import Graph
from dfmeta.graph.channels import ChannelGroup
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.narrow import narrowed
from dfmeta.records import PublishedRecords

Watch = Callable[[str, int, int], None]

__all__ = ["REQUIRES", "Config", "PrunedGroup", "PrunedOperator", "Result", "check", "run", "sparsity_of"]

REQUIRES = ("second-moment",)
_SOME = Range(above=0, most=1)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the step. One of ``channels``, ``macs`` and ``sparsity`` at least.

    Attributes:
        channels: fraction of channels that stays, above 0 and up to 1.
        macs: fraction of the graph's multiply-accumulates that stays, above 0 and up to 1; not with ``channels``.
        sparsity: fraction of zeros, such as ``0.5``, or a pattern such as ``2:4``: two of four neighbouring inputs may
            be other than zero. Empty for none.
        groups: ``inner``: channels that one weight makes and one reads; ``all``: also those that residual sums,
            concatenations and branches share.
        widths: ``uniform``: the same fraction of every group; ``overall``: one rule finds the widths of all groups, by
            what each channel costs. ``macs`` always goes by such a rule, and by what each channel saves.
        ranking: ``surgeon``: one channel after the other, the rest making up for it; ``energy``: at once, by what each
            channel contributes alone.
        affine: whether biases are refitted as well as weights.
        variance: whether refitted weights are scaled to give each output the variance that it had. Least squares alone
            makes less of it, layer after layer.
        damping: least ridge of the repair, in units of the mean of the moment's diagonal.
        sparse_damping: the same of the sparse rule.
        fallback: what happens where nothing was recorded: ``none`` refuses; ``norms`` goes by the weights' norms there
            and repairs nothing.
    """

    channels: float | None = within(None, _SOME)
    macs: float | None = within(None, _SOME)
    sparsity: str = ""
    groups: Literal["inner", "all"] = "inner"
    widths: Literal["uniform", "overall"] = "uniform"
    ranking: Literal["surgeon", "energy"] = "surgeon"
    affine: bool = True
    variance: bool = True
    damping: float = 1e-3
    sparse_damping: float = 1e-2
    fallback: Literal["none", "norms"] = "none"


@dataclass(frozen=True, slots=True)
class Result:
    """What :func:`run` made.

    Attributes:
        graph: fewer channels and more zeros; BatchNormalization folded into weights where that is possible.
        groups: every group of channels that some weight makes; none where only zeros were asked for.
        operators: every weight operator that was changed.
    """

    graph: Graph
    groups: tuple[PrunedGroup, ...]
    operators: tuple[PrunedOperator, ...]


def run(graph: Graph, records: PublishedRecords, config: Config, watch: Watch | None = None) -> Result:
    """Prune a graph.

    Args:
        graph: that the records were taken of; stays as it is.
        records: of that very graph.
        config: settings.
        watch: called with what is being done, how much of it is done, and how much there is.

    Raises:
        DataError: settings out of range, or that contradict each other.
        UnknownName: a choice that is none.
        StepError: records that are missing, channels that cannot be cut, or a goal that cannot be reached.
    """
    sparsity = check(config)
    told: Watch = watch or (lambda *_: None)
    base = without_batch_norm(graph)
    sources = Sources(base, records, config.damping, affine=config.affine)
    every: Sequence[tuple[ChannelGroup, str]] = ()
    if config.channels is not None or config.macs is not None:
        every = candidates(base, sources, config.groups)
    free = [group for group, reason in every if not reason]
    _require(sources, free, sparsity, config, graph.where)
    kept = _kept(base, free, sources, config, told)
    changed = _changed(free, kept, sources, sparsity, config, told)
    result = _rebuilt(base, changed, sources, kept)
    return Result(result, groups_report(every, kept), operators_report(changed, sources, sparsity, result))


def sparsity_of(text: str) -> Sparsity | None:
    """``0.5`` as a fraction, ``2:4`` as two of four, empty text as None.

    Raises:
        DataError: other text, or a fraction or pattern that is out of range.
    """
    if not text:
        return None
    pattern = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
    if pattern is not None:
        few, many = int(pattern[1]), int(pattern[2])
        if 0 < few < many:
            return few, many
    else:
        try:
            fraction = float(text)
        except ValueError:
            fraction = 0.0
        if 0 < fraction < 1:
            return fraction
    raise DataError("prune, sparsity", repr(text), "a fraction above 0 and below 1, or a pattern such as 2:4")


def check(config: Config) -> Sparsity | None:
    """Refuse settings that no graph could follow, with the errors of :func:`run`; the sparsity."""
    _settings.check(config, "prune")
    if config.channels is not None and config.macs is not None:
        raise DataError("prune", "both channels and macs", "one of them", "One says how far to go, so does the other.")
    if config.channels is None and config.macs is None and not config.sparsity:
        raise DataError("prune", "nothing to do", "channels, macs or sparsity", "Give one of them.")
    return sparsity_of(config.sparsity)


def _require(
    sources: Sources, free: Sequence[ChannelGroup], sparsity: Sparsity | None, config: Config, where: str
) -> None:
    """Refuse to go on without the records of any weight that would be repaired."""
    if config.fallback == "norms":
        return
    read = {member.tensor for group in free for member in group.of("consumer")}
    missing = sources.unrecorded([name for name in sources.weights if sparsity is not None or name in read])
    if missing:
        names = ", ".join(f"{operator.label} (reads {operator.entry.value!r})" for operator in missing)
        raise StepError(
            where,
            f"no second moment of the inputs of {names}",
            "one of each",
            "Use a bundle recorded with the preset 'calibration', or the fallback 'norms', which repairs nothing.",
        )


def _kept(
    base: Graph, free: Sequence[ChannelGroup], sources: Sources, config: Config, watch: Watch
) -> dict[str, Indices]:
    if not free:
        return {}
    if config.macs is not None:
        return overall(base, free, sources, ("macs", config.macs), config.ranking, watch, groups=config.groups)
    fraction = 1.0 if config.channels is None else config.channels
    if config.widths == "overall":
        return overall(base, free, sources, ("channels", fraction), config.ranking, watch, groups=config.groups)
    return uniform(free, sources, fraction, config.ranking, watch)


def _changed(
    free: Sequence[ChannelGroup],
    kept: Mapping[str, Indices],
    sources: Sources,
    sparsity: Sparsity | None,
    config: Config,
    watch: Watch,
) -> dict[str, Repaired]:
    """New weights, by name."""
    columns, rows = lost_features(free, kept, sources), lost_rows(free, kept, sources)
    nothing = np.zeros(0, np.int64)
    names = [name for name in sources.weights if sparsity is not None or name in columns]
    found = {}
    for number, name in enumerate(names):
        lost = columns.get(name, nothing), rows.get(name, nothing)
        found[name] = repaired(sources.of(name), *lost, sparsity, config.sparse_damping, variance=config.variance)
        watch("repair", number + 1, len(names))
    return found


def _rebuilt(base: Graph, changed: Mapping[str, Repaired], sources: Sources, kept: Mapping[str, Indices]) -> Graph:
    weights, biases = {}, {}
    for name, new in changed.items():
        found = sources.operators(name)
        weights[name] = found[0].restored(new.weight)
        for operator, shift in zip(found, new.shifts, strict=True):
            if shift is not None:
                biases[operator.label] = bias_values(base, operator) + shift
    result = with_bias(with_weights(base, weights), biases)
    return narrowed(result, kept) if kept else result
