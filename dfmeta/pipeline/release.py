"""The release that a publisher writes: the manifest from what was measured and what is said, and the bundle."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dfmeta import __version__
from dfmeta._catalog import KINDS
from dfmeta.bundle import Content, write_bundle
from dfmeta.errors import DataError
from dfmeta.graph import Graph
from dfmeta.pipeline.inputs import input_range
from dfmeta.records import (
    DEFAULT_MIN_UNITS,
    DifferentialPrivacy,
    Gathered,
    Probe,
    Recording,
    SitePlan,
    Taken,
    fit_gathered,
    publication,
    take_probe,
)
from dfmeta.records.recorder import engine_words
from dfmeta.schema import Manifest, v1

GRAPH_PATH, RECORDS_PATH, PROBE_PATH = "model.onnx", "dfmeta/records.safetensors", "dfmeta/probe.safetensors"
LABELS = "classes"
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
        target = budget_bytes
        while budget_bytes is not None and target is not None and stored_bytes(made) > budget_bytes:
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
    """
    ranges = {entry.name: input_range(entry) for entry in inputs}
    bounds = {name: pair for name, pair in ranges.items() if np.isfinite(pair).all()}
    probe = take_probe(graph, recording.sites, bounds, seed)
    names = list(label_names or map(str, range(classes or 0)))
    tensors: dict[str, np.ndarray] = {}
    records = []
    for number, taken in enumerate(recording.records):
        records.append(_record(f"r{number:04d}", taken, recording))
        tensors |= {f"r{number:04d}.{name}": array for name, array in taken.tensors.items()}
    manifest = Manifest(
        format="dfmeta",
        format_version="1.0",
        bundle=_bundle_info(release),
        files=[
            v1.File.draft("graph", "model.graph", GRAPH_PATH),
            v1.File.draft("records", "records", RECORDS_PATH),
            v1.File.draft("probe", "probe", PROBE_PATH),
        ],
        model=_model(graph, inputs, release, names, probe),
        sites=[_site(site) for site in recording.sites],
        records=records,
        runs=[_run(recording, seed, limit, engine or engine_words(None, "cpu"))],
        datasets=[_dataset(recording, release, split)],
        privacy=_privacy(recording, release),
        licenses=v1.Licenses(records=release.license, model=release.license) if release.license else None,
    )
    members: dict[str, Content] = {GRAPH_PATH: graph.raw, RECORDS_PATH: tensors, PROBE_PATH: probe.tensors}
    identity = write_bundle(out, manifest, members)
    size = (Path(out) / RECORDS_PATH).stat().st_size
    told = {key: recording.ledger[key] for key in ("rho", "approximate_dp")} if recording.ledger is not None else None
    return Published(
        Path(out),
        identity,
        len(recording.sites),
        len(records),
        recording.unit_count,
        size,
        len(graph.raw),
        recording.left_out,
        told,
    )


def _extremes(recording: Recording) -> str:
    """What became of smallest and largest values: no kind but one that says so publishes any."""
    specs = (KINDS.load(taken.plan.kind, "spec") for taken in recording.records)
    policies = {getattr(spec, "EXTREMES_POLICY", "none-published") for spec in specs} - {"none-published"}
    if not policies:
        return "none-published"
    return "noised" if recording.ledger is not None else policies.pop()


def _bundle_info(release: Release) -> v1.BundleInfo:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return v1.BundleInfo(
        id=f"urn:uuid:{uuid.uuid4()}",
        version=release.version,
        created=now,
        title=release.title,
        description=release.description,
        generator=v1.Generator(name="dfmeta", version=__version__),
    )


def _model(graph: Graph, inputs: Sequence[v1.Input], release: Release, labels: list[str], probe: Probe) -> v1.Model:
    outputs = [
        v1.Output(
            name=value.name,
            dtype=value.dtype,
            shape=_shape(value.shape),
            semantics="logits" if number == 0 and labels else None,
            labels=LABELS if number == 0 and labels else None,
        )
        for number, value in enumerate(graph.outputs)
    ]
    return v1.Model(
        name=release.name,
        parameter_count=graph.parameter_count,
        graph=v1.GraphRef(
            file="graph",
            ir_version=graph.ir_version,
            opset_import=[v1.OpsetImport(domain="", version=graph.opset)],
        ),
        inputs=list(inputs),
        outputs=outputs,
        label_sets=[v1.LabelSet(id=LABELS, names=labels)] if labels else [],
        probe=v1.ProbeRef(file="probe", atol=probe.atol, rtol=probe.rtol),
    )


def _shape(shape: Sequence[int | str]) -> list[int | str]:
    return ["batch", *shape[1:]] if shape else []


def _site(site: SitePlan) -> v1.Site:
    channels = site.shape[site.feature_axis] if site.feature_axis is not None else None
    return v1.Site(
        id=site.id,
        label=site.label,
        addresses=[v1.OnnxValue(file="graph", value=site.value)],
        dtype=site.dtype,
        shape=list(site.shape),
        feature_axis=site.feature_axis,
        feature_count=int(channels) if channels is not None else None,
        probe=v1.SiteProbe(mean=f"{site.id}.mean", l2=f"{site.id}.l2"),
    )


def _record(name: str, taken: Taken, recording: Recording) -> v1.Record:
    spec = KINDS.load(taken.plan.kind, "spec")
    return v1.Record(
        id=name,
        site=taken.plan.site.id,
        paired_site=taken.plan.paired.id if taken.plan.paired is not None else None,
        kind=taken.plan.kind,
        kind_version=spec.VERSION,
        file="records",
        run="run",
        group=v1.Group(by="class", label_set=LABELS) if taken.by_class else v1.Group(by="all"),
        features=taken.plan.features,
        feature_count=taken.plan.feature_count,
        tensors={key: v1.TensorRef.draft(f"{name}.{key}") for key in taken.tensors},
        conventions=spec.CONVENTIONS,
        configuration=dict(taken.plan.configuration),
        unit_count=taken.unit_count,
        position_count=taken.position_count,
        # What was withheld is missing from the record over all units too, and what was noised stays so.
        mergeable=spec.MERGEABLE and recording.suppression == "none" and recording.ledger is None,
        suppressed_groups=list(taken.suppressed),
    )


def _dataset(recording: Recording, release: Release, split: str | None) -> v1.Dataset:
    return v1.Dataset(
        id="data",
        name=release.dataset,
        split=split,
        unit=release.unit,
        unit_count=recording.unit_count,
        contains_personal_data=release.contains_personal_data,
    )


def _privacy(recording: Recording, release: Release) -> v1.Privacy:
    return v1.Privacy(
        unit=release.unit,
        min_unit_count=recording.min_units,
        suppression=recording.suppression,
        extremes_policy=_extremes(recording),
        differential_privacy=dict(recording.ledger) if recording.ledger is not None else None,
        attestation="declared-by-publisher",
    )


def _run(recording: Recording, seed: int, limit: int | None, engine: v1.Engine) -> v1.Run:
    if recording.suppression != "none" or recording.ledger is not None:
        # Beside the number of published units, that of the drawn ones is the size of what was withheld; and where
        # counts are private, it is the count.
        limit = None
    return v1.Run(id="run", dataset="data", engine=engine, batch_size=recording.batch_size, seed=seed, limit=limit)
