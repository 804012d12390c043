"""The release that a publisher writes: what is given away of what was measured, and the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dfmeta.bundle import Content, write_bundle
from dfmeta.errors import DataError
from dfmeta.graph import Graph
from dfmeta.graph.metadata import without_text
from dfmeta.pipeline import leaks
from dfmeta.pipeline.drafting import (
    GRAPH_PATH,
    PROBE_PATH,
    RECORDS_PATH,
    Origin,
    draft_manifest,
    sidecar_tensors,
)
from dfmeta.pipeline.inputs import input_range
from dfmeta.records import (
    DEFAULT_MIN_UNITS,
    DifferentialPrivacy,
    Gathered,
    Recording,
    fit_gathered,
    take_probe,
)
from dfmeta.records.publication import publication
from dfmeta.records.recorder import engine_words
from dfmeta.schema import v1

# What a tensor takes in a sidecar's header, at most: its name, type, shape and place.
HEADER_BYTES = 192


@dataclass(frozen=True, slots=True)
class Release:
    """What a publisher may say about a release beyond what is measured.

    Attributes:
        name: the model's name.
        version: of the release.
        title, description: for people.
        dataset: what the data set is called; its file name is never published.
        unit: what privacy counts: ``image``, ``document``, ``person``.
        license: SPDX expression for model and records, if there is one.
        contains_personal_data: ``yes``, ``no`` or ``no-assertion``.
    """

    name: str = "model"
    version: str = "1.0.0"
    title: str | None = None
    description: str | None = None
    dataset: str = "unnamed"
    unit: str = "image"
    license: str | None = None
    contains_personal_data: Literal["yes", "no", "no-assertion"] = "no-assertion"


@dataclass(frozen=True, slots=True)
class Publishing:
    """What is given away of what was gathered, and what is said about it.

    Attributes:
        release: what to say.
        min_units: the smallest class that may be published.
        suppress: withhold smaller classes instead of refusing.
        privacy: publish noised statistics only; what was gathered must have been clipped for it.
    """

    release: Release = Release()
    min_units: int = DEFAULT_MIN_UNITS
    suppress: bool = False
    privacy: DifferentialPrivacy | None = None

    def recording(self, gathered: Gathered, budget_bytes: int | None = None) -> Recording:
        """The records that may be published.

        Args:
            gathered: what was gathered; it stays as it is.
            budget_bytes: what the sidecar may take. A plan foresees it but for lengths that the data decides; what
                these take more is saved elsewhere here.

        Raises:
            DataError: too few units, classes that are too small, clipped units without noise, or a budget that
                nothing fits.
        """
        if gathered.clip is not None and self.privacy is None:
            found, expected = "units that were scaled down, and no noise", "--dp-rho with it"
            raise DataError("--dp-clip", found, expected, "Give --dp-rho, or record without --dp-clip.")
        made = publication(gathered, min_units=self.min_units, suppress=self.suppress, privacy=self.privacy)
        return made if budget_bytes is None else self._within(budget_bytes, gathered, made)

    def _within(self, budget_bytes: int, gathered: Gathered, made: Recording) -> Recording:
        """The same records, smaller ones if these take more."""
        target = budget_bytes
        while stored_bytes(made) > budget_bytes:
            needed, target = stored_bytes(made), target - (stored_bytes(made) - budget_bytes)
            try:
                # Noise is drawn once: with it there is no second try.
                smaller = fit_gathered(gathered, target) if self.privacy is None and target > 0 else None
            except DataError:
                smaller = None
            if smaller is None:
                fix = "Raise the budget (--budget-bytes), or record less."
                raise DataError("budget", f"{budget_bytes} bytes", f"at least {needed}, for these records", fix)
            made = publication(smaller, min_units=self.min_units, suppress=self.suppress)
        return made


def stored_bytes(recording: Recording) -> int:
    """At most what the sidecar of these records takes."""
    arrays = [array for taken in recording.records for array in taken.tensors.values()]
    return sum(array.nbytes for array in arrays) + HEADER_BYTES * (len(arrays) + 1)


@dataclass(frozen=True, slots=True)
class Published:
    """What :func:`dfmeta.record` or :func:`dfmeta.merge` wrote.

    Attributes:
        path: the bundle's folder.
        identity: sha256 of its manifest.
        sites: number of sites.
        records: number of records.
        units: number of units recorded.
        record_bytes: size of the sidecar.
        graph_bytes: size of the graph.
        left_out: what no noise mechanism covers, as ``kind at site``, and was not published therefore.
        privacy: rho and what it comes to, as in the manifest's ledger; None where nothing was noised.
    """

    path: Path
    identity: str
    sites: int
    records: int
    units: int
    record_bytes: int
    graph_bytes: int
    left_out: tuple[str, ...] = ()
    privacy: Mapping[str, Any] | None = None


def publish(
    out: str | Path,
    graph: Graph,
    recording: Recording,
    *,
    inputs: Sequence[v1.Input],
    release: Release,
    split: str | None = None,
    label_names: Sequence[str] | None = None,
    classes: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    engine: v1.Engine | None = None,
) -> Published:
    """Write a bundle from a graph and a finished recording.

    What is written is the graph that was recorded, but for documentation strings and metadata properties: exporters
    leave paths and stack traces there.

    Args:
        out: the bundle's folder; must not exist.
        graph: the graph that was recorded.
        recording: what :meth:`dfmeta.records.Recorder.finish` gave.
        inputs: the model's inputs with their preprocessing.
        release: what to say about it.
        split: which part of the data set was recorded.
        limit: how many of its units were drawn, or None for all; not published where classes were withheld.
        seed: of that draw, and of the probe.
        label_names: names of the classes; their numbers where there are none.
        classes: number of classes, or None.
        engine: what ran the graph; onnxruntime on the CPU unless told.

    Raises:
        OutputExists: something is at ``out`` already.
        DataError: a name in the graph or the manifest that holds a path of a machine, or somebody's address.
        SchemaError: numbers that break the format.
    """
    graph = without_text(graph)
    ranges = {entry.name: input_range(entry) for entry in inputs}
    bounds = {name: pair for name, pair in ranges.items() if np.isfinite(pair).all()}
    probe = take_probe(graph, recording.sites, bounds, seed)
    labels = list(label_names or map(str, range(classes or 0)))
    origin = Origin(inputs, labels, split, seed, limit, engine or engine_words(None, "cpu"))
    manifest = draft_manifest(graph, recording, probe, origin, release)
    leaks.require_none(graph, manifest=manifest.model_dump(mode="json"))
    tensors = sidecar_tensors(recording)
    members: dict[str, Content] = {GRAPH_PATH: graph.raw, RECORDS_PATH: tensors, PROBE_PATH: probe.tensors}
    identity = write_bundle(out, manifest, members)
    size = (Path(out) / RECORDS_PATH).stat().st_size
    told = {key: recording.ledger[key] for key in ("rho", "approximate_dp")} if recording.ledger is not None else None
    return Published(
        Path(out),
        identity,
        len(recording.sites),
        len(recording.records),
        recording.unit_count,
        size,
        len(graph.raw),
        recording.left_out,
        told,
    )
