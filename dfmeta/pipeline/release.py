"""The publisher's side: take records over a data set, and write the release."""

from __future__ import annotations

import datetime
import importlib.metadata
import os.path
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dfmeta import __version__
from dfmeta._catalog import KINDS
from dfmeta.bundle import Content, write_bundle
from dfmeta.data import DataSource, feed, open_data
from dfmeta.errors import DataError, OutputExists
from dfmeta.graph import Graph
from dfmeta.pipeline.inputs import class_count, graph_inputs, input_range
from dfmeta.records import (
    DEFAULT_MIN_UNITS,
    DEFAULT_RANK,
    Probe,
    Recorder,
    Recording,
    SitePlan,
    Taken,
    make_plan,
    take_probe,
)
from dfmeta.schema import Manifest, v1

Progress = Callable[[str, int, int, float], None]
GRAPH_PATH, RECORDS_PATH, PROBE_PATH = "model.onnx", "dfmeta/records.safetensors", "dfmeta/probe.safetensors"
LABELS = "classes"


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
class Published:
    """What :func:`record` wrote.

    Attributes:
        path: the bundle's folder.
        identity: sha256 of its manifest.
        sites: number of sites.
        records: number of records.
        units: number of units recorded.
        record_bytes: size of the sidecar.
        graph_bytes: size of the graph.
    """

    path: Path
    identity: str
    sites: int
    records: int
    units: int
    record_bytes: int
    graph_bytes: int


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
        by_class: also one row for each class; needs labels.
        rank: eigenpairs that each ``spectrum`` keeps.
        at: only these of the presets' sites, by value name or label; None for all.
        min_units: the smallest class that may be published.
        suppress: withhold smaller classes instead of refusing.
        batch_size: units in a forward pass.
        seed: of ``limit`` and of the probe.
        limit: record that many units, drawn with ``seed``.
        progress: called with stage, units done, units in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        DataError, GraphError, StepError: the data does not fit the model, or the model fails on it.
    """
    if os.path.lexists(out):
        raise OutputExists(out)
    source = open_data(data, limit=limit, seed=seed) if isinstance(data, str) else data
    if release is None:
        release = Release()
    if source.count == 0:
        raise DataError(source.name, "no units", "at least one")
    if by_class and source.labels is None:
        fix = "Add y to the data, or record without classes (--no-classes)."
        raise DataError(source.name, "no labels", "one class for each unit", fix)
    classes = class_count(graph) if by_class else None
    inputs = graph_inputs(graph, preprocessing)
    plan = make_plan(graph, presets, rank=rank, at=at)
    with Recorder(graph, plan, classes=classes, min_units=min_units, suppress=suppress) as recorder:
        done = 0
        for batch in feed(source, inputs, batch_size):
            recorder.update(batch.inputs, batch.labels)
            done += len(next(iter(batch.inputs.values())))
            if progress is not None:
                progress("record", done, source.count, 0.0)
        recording = recorder.finish()
    return publish(
        out,
        graph,
        recording,
        inputs=inputs,
        release=release,
        split=source.split,
        label_names=source.label_names,
        classes=classes,
        seed=seed,
        limit=limit,
    )


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
        runs=[_run(recording, seed, limit)],
        datasets=[
            v1.Dataset(
                id="data",
                name=release.dataset,
                split=split,
                unit=release.unit,
                unit_count=recording.unit_count,
                contains_personal_data=release.contains_personal_data,
            )
        ],
        privacy=v1.Privacy(
            unit=release.unit,
            min_unit_count=recording.min_units,
            suppression=recording.suppression,
            extremes_policy="none-published",
            attestation="declared-by-publisher",
        ),
        licenses=v1.Licenses(records=release.license, model=release.license) if release.license else None,
    )
    members: dict[str, Content] = {GRAPH_PATH: graph.raw, RECORDS_PATH: tensors, PROBE_PATH: probe.tensors}
    identity = write_bundle(out, manifest, members)
    size = (Path(out) / RECORDS_PATH).stat().st_size
    return Published(
        Path(out), identity, len(recording.sites), len(records), recording.unit_count, size, len(graph.raw)
    )


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
        # What was withheld is missing from the record over all units too.
        mergeable=spec.MERGEABLE and recording.suppression == "none",
        suppressed_groups=list(taken.suppressed),
    )


def _run(recording: Recording, seed: int, limit: int | None) -> v1.Run:
    engine = v1.Engine(
        name="onnxruntime", version=importlib.metadata.version("onnxruntime"), provider="CPUExecutionProvider"
    )
    if recording.suppression != "none":
        # Beside the number of published units, that of the drawn ones is the size of what was withheld.
        limit = None
    return v1.Run(id="run", dataset="data", engine=engine, batch_size=recording.batch_size, seed=seed, limit=limit)
