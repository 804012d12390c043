"""How well the published records tell the units that went into them from others: membership inference, measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfmeta.bundle import Bundle
from dfmeta.data import DataSource, check_labels, feed, open_data
from dfmeta.errors import DataError, UnknownName
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline.inputs import class_count
from dfmeta.records import PublishedRecords, Statistic
from dfmeta.records.privacy_roc import RULE, Attack, Curve, Scores, Trial, curve, judged, strongest
from dfmeta.records.privacy_scores import Scorer, SecondMoments
from dfmeta.schema import v1

Progress = Callable[[str, int, int, float], None]
LEAST_MEMBERS, LEAST_OTHERS = 20, 100


@dataclass(frozen=True, slots=True)
class Audit:
    """What :func:`audit` found.

    Attributes:
        bundle: the folder.
        identity: sha256 of its manifest.
        members, others, reference: units in each part; the reference is the half of the non-members that the attacker
            knows, ``others`` the half that members are told from.
        attacks: every score of every record.
        best: the strongest attack of each kind, by area.
        curves: their ROC curves.
        alarm: whether any attack raises one.
        rule: when that is.
        skipped: records that no score reads.
    """

    bundle: str
    identity: str
    members: int
    others: int
    reference: int
    attacks: tuple[Attack, ...]
    best: tuple[Attack, ...]
    curves: tuple[Curve, ...]
    alarm: bool
    rule: str
    skipped: tuple[str, ...]


def audit(
    bundle: str | Path,
    members: str,
    non_members: str,
    *,
    records: Sequence[str] | None = None,
    limit: int | None = None,
    non_members_limit: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Audit:
    """Try to tell which units went into a bundle's records, from the records alone.

    The attacker has the bundle and a reference of the same population, for which half of the non-members is taken.
    What is measured is a lower bound of what leaks: better attacks, or a larger reference, may find more. Members and
    non-members must be drawn from the same population, or what sets the two sets apart is taken for a leak.

    Args:
        bundle: the release.
        members: units that went into it, as ``--data`` takes them.
        non_members: units that did not.
        records: only these, by id or kind; None for all.
        limit: use that many members, drawn with ``seed``: the very units that recording with this limit drew.
        non_members_limit: use that many non-members, drawn with ``seed``.
        seed: of the limits and of the halves.
        batch_size: units in a forward pass.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        DataError: too few units, units that are in both sets, or labels missing for records by class.
        UnknownName: no such record.
        BundleError, SchemaError, GraphError: a bundle that cannot be used.
    """
    release = Bundle.open(bundle)
    graph = Graph.from_bytes(release.graph_bytes(), f"{bundle}: graph")
    published = PublishedRecords.read(release)
    scorers = [_scorer(release, statistic) for statistic in _chosen(published, records)]
    silent = [scorer.statistic.record for scorer in scorers if not scorer.names]
    scorers = [scorer for scorer in scorers if scorer.names]
    inside = open_data(members, limit=limit, seed=seed)
    outside = open_data(non_members, limit=non_members_limit, seed=seed)
    for option, source, least in (("--members", inside, LEAST_MEMBERS), ("--non-members", outside, LEAST_OTHERS)):
        _require(option, source, least, scorers, graph)
    reference, others = _halves(outside, seed)
    run = _Run(graph, release.manifest.model.inputs, scorers, batch_size, progress)
    known = run.learn(reference)
    run.calibrate(reference)
    in_scores, in_digests = run.scores("members", inside)
    out_scores, out_digests = run.scores("non-members", others)
    _require_apart(in_digests, out_digests | known)
    trials = _trials(release.manifest, scorers, in_scores, out_scores)
    attacks = judged(trials)
    best = strongest(attacks)
    return Audit(
        bundle=str(bundle),
        identity=release.identity,
        members=inside.count,
        others=others.count,
        reference=reference.count,
        attacks=attacks,
        best=best,
        curves=tuple(curve(trials[attacks.index(attack)]) for attack in best),
        alarm=any(attack.alarm for attack in attacks),
        rule=RULE,
        skipped=(*published.skipped, *silent) if records is None else tuple(silent),
    )


class _Run:
    """The graph over a data set, and every record's scorer fed with its site."""

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[v1.Input],
        scorers: Sequence[Scorer],
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self._inputs, self._scorers, self._batch, self._progress = inputs, scorers, batch_size, progress
        given = {value.name for value in graph.inputs}
        sites = dict.fromkeys(scorer.statistic.value for scorer in scorers)
        self._session = OrtGraph(graph, [site for site in sites if site not in given], dynamic_batch=True)

    def learn(self, source: DataSource) -> set[bytes]:
        """Show the reference to all scorers; the digests of its units."""
        digests = set()
        for values, labels, batch in self._values("reference", source):
            digests |= batch
            for scorer in self._scorers:
                scorer.learn(torch.from_numpy(values[scorer.statistic.value]), labels)
        return digests

    def calibrate(self, source: DataSource) -> None:
        """Show it again, for the spread of its scores."""
        for values, labels, _ in self._values("calibration", source):
            for scorer in self._scorers:
                scorer.calibrate(torch.from_numpy(values[scorer.statistic.value]), labels)

    def scores(self, stage: str, source: DataSource) -> tuple[list[dict[str, Scores]], set[bytes]]:
        """For each scorer the scores of all units by name; and the units' digests."""
        parts: list[list[dict[str, Scores]]] = [[] for _ in self._scorers]
        digests = set()
        for values, labels, batch in self._values(stage, source):
            digests |= batch
            for scorer, found in zip(self._scorers, parts, strict=True):
                found.append(scorer.scores(torch.from_numpy(values[scorer.statistic.value]), labels))
        joined = [{name: np.concatenate([part[name] for part in found]) for name in found[0]} for found in parts]
        return joined, digests

    def _values(
        self, stage: str, source: DataSource
    ) -> Iterator[tuple[dict[str, np.ndarray], NDArray[np.int64], set[bytes]]]:
        done = 0
        for batch in feed(source, self._inputs, self._batch):
            arrays = [batch.inputs[name] for name in sorted(batch.inputs)]
            count = len(arrays[0])
            labels = np.zeros(count, np.int64) if batch.labels is None else batch.labels
            digests = {
                hashlib.sha256(b"".join(part.tobytes() for part in unit)).digest() for unit in zip(*arrays, strict=True)
            }
            yield {**self._session.run(batch.inputs), **batch.inputs}, labels, digests
            done += count
            if self._progress is not None:
                self._progress(stage, done, source.count, 0.0)


def _scorer(release: Bundle, statistic: Statistic) -> Scorer:
    record = release.manifest.record(statistic.record)
    if record is None or statistic.kind != "second-moment":
        return Scorer(statistic)
    arrays = release.record_tensors(record.id)
    return Scorer(statistic, SecondMoments.read(arrays, record.feature_count, record.configuration))


def _chosen(published: PublishedRecords, records: Sequence[str] | None) -> list[Statistic]:
    statistics = list(published.statistics)
    if records is None:
        found = statistics
    else:
        for name in records:
            if not any(name in (entry.record, entry.kind) for entry in statistics):
                known = {entry.kind for entry in statistics} | {entry.record for entry in statistics}
                raise UnknownName("record", name, known)
        found = [entry for entry in statistics if entry.record in records or entry.kind in records]
    if not found:
        raise DataError("records", "none that can be examined", "at least one", "Audit a bundle with records.")
    return found


def _require(option: str, source: DataSource, least: int, scorers: Sequence[Scorer], graph: Graph) -> None:
    if source.count < least:
        fix = "Give more units: with few, chance and leak look alike."
        raise DataError(f"{option}, {source.name}", f"{source.count} units", f"at least {least}", fix)
    if not any(scorer.statistic.by_class for scorer in scorers):
        return
    if source.labels is None:
        fix = "Add y to the data, or name records over all units (--record)."
        raise DataError(f"{option}, {source.name}", "no labels", "one class for each unit: records are by class", fix)
    check_labels(source.labels, class_count(graph), source.name)


def _halves(source: DataSource, seed: int) -> tuple[DataSource, DataSource]:
    """Two halves of a data set, of every class half, drawn with the seed."""
    shuffled = np.random.default_rng(seed).permutation(source.count)
    if source.labels is not None:
        shuffled = shuffled[np.argsort(source.labels[shuffled], kind="stable")]
    parts = [np.sort(shuffled[start::2]) for start in (0, 1)]
    labels = [None if source.labels is None else source.labels[part] for part in parts]
    first, second = (
        replace(source, indices=source.indices[part], labels=of_part)
        for part, of_part in zip(parts, labels, strict=True)
    )
    return first, second


def _require_apart(members: set[bytes], others: set[bytes]) -> None:
    both = len(members & others)
    if both:
        found = (
            "the same units as --non-members" if both == len(members) else f"{both} units that --non-members has too"
        )
        fix = "Give two sets that share no unit; remove what is in both."
        raise DataError("--members", found, "units of its own", fix)


def _trials(
    manifest: v1.Manifest, scorers: Sequence[Scorer], inside: list[dict[str, Scores]], outside: list[dict[str, Scores]]
) -> list[Trial]:
    """Every score of every record, and their sums over the records of a kind."""
    labels = {site.id: site.label or site.onnx_value() or site.id for site in manifest.sites}
    trials: list[Trial] = []
    for scorer, ours, theirs in zip(scorers, inside, outside, strict=True):
        entry = scorer.statistic
        site = labels[entry.site]
        trials += [
            Trial(entry.record, entry.kind, site, entry.by_class, name, ours[name], theirs[name])
            for name in scorer.names
        ]
    for kind, name in dict.fromkeys((trial.kind, trial.score) for trial in trials):
        parts = [trial for trial in trials if (trial.kind, trial.score) == (kind, name)]
        if len(parts) > 1:
            ours, theirs = (np.sum(side, axis=0) for side in zip(*((t.members, t.others) for t in parts), strict=True))
            trials.append(Trial("all", kind, "", False, name, ours, theirs))
    usable = [trial.seen() for trial in trials]
    kept = [trial for trial in usable if min(len(trial.members), len(trial.others)) >= LEAST_MEMBERS]
    if not kept:
        fix = "Give units of the classes that the bundle has."
        raise DataError("--members", "no record with enough units of its classes", f"{LEAST_MEMBERS} of each set", fix)
    return kept
