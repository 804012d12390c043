"""The manifest of a release, drafted from what was measured and what is said; sizes and digests come later."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dfmeta import __version__
from dfmeta._catalog import KINDS
from dfmeta.graph import Graph
from dfmeta.records import Probe, Recording, SitePlan, Taken
from dfmeta.schema import Manifest, v1

if TYPE_CHECKING:
    from dfmeta.pipeline.release import Release

GRAPH_PATH, RECORDS_PATH, PROBE_PATH = "model.onnx", "dfmeta/records.safetensors", "dfmeta/probe.safetensors"
LABELS = "classes"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the numbers of a recording come from.

    Attributes:
        inputs: the model's inputs with their preprocessing.
        labels: names of the classes; none where there are none.
        split: which part of the data set was recorded.
        seed: of everything that was drawn.
        limit: how many units of the data set were drawn; None for all.
        engine: what ran the graph.
    """

    inputs: Sequence[v1.Input]
    labels: Sequence[str]
    split: str | None
    seed: int
    limit: int | None
    engine: v1.Engine


def draft_manifest(graph: Graph, recording: Recording, probe: Probe, origin: Origin, release: Release) -> Manifest:
    """Everything that a manifest says, but for sizes and digests.

    Args:
        graph: the graph that was recorded.
        recording: what is published of it.
        probe: taken of the same graph.
        origin: where the numbers come from.
        release: what the publisher says.
    """
    licenses = v1.Licenses(records=release.license, model=release.license) if release.license else None
    return Manifest(
        format="dfmeta",
        format_version="1.0",
        bundle=_bundle_info(release),
        files=[
            v1.File.draft("graph", "model.graph", GRAPH_PATH),
            v1.File.draft("records", "records", RECORDS_PATH),
            v1.File.draft("probe", "probe", PROBE_PATH),
        ],
        model=_model(graph, origin, release, probe),
        sites=[_site(site) for site in recording.sites],
        records=[_record(name, taken, recording) for name, taken in _named(recording)],
        runs=[_run(recording, origin)],
        datasets=[_dataset(recording, release, origin.split)],
        privacy=_privacy(recording, release),
        licenses=licenses,
    )


def sidecar_tensors(recording: Recording) -> dict[str, np.ndarray]:
    """All tensors of a recording, by the names that :func:`draft_manifest` gives them."""
    return {f"{name}.{key}": array for name, taken in _named(recording) for key, array in taken.tensors.items()}


def _named(recording: Recording) -> Iterator[tuple[str, Taken]]:
    """The records and their ids."""
    return ((f"r{number:04d}", taken) for number, taken in enumerate(recording.records))


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


def _model(graph: Graph, origin: Origin, release: Release, probe: Probe) -> v1.Model:
    labels = list(origin.labels)
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
        inputs=list(origin.inputs),
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


def _run(recording: Recording, origin: Origin) -> v1.Run:
    # Beside the number of published units, that of the drawn ones is the size of what was withheld; and where counts
    # are private, it is the count.
    told = recording.suppression == "none" and recording.ledger is None
    return v1.Run(
        id="run",
        dataset="data",
        engine=origin.engine,
        batch_size=recording.batch_size,
        seed=origin.seed,
        limit=origin.limit if told else None,
    )
