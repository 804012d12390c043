"""What was measured: sites, records, the runs and data sets behind them, and what privacy was given."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from dfmeta.schema.grammar import Id, Name, Sha256, TensorName, Time
from dfmeta.schema.v1.base import Count, Dimension, Node, Positive, Text
from dfmeta.schema.v1.model import UNKNOWN_SHA256

KNOWN_FEATURES = ("flattened", "channel", "patch")
KNOWN_SCHEMES = ("onnx-value", "torch-module")
SiteShape = Annotated[list[Dimension], Field(min_length=1, max_length=8)]


class OnnxValue(Node):
    """The authoritative address: a value name of the graph in ``file``."""

    scheme: Literal["onnx-value"] = "onnx-value"
    file: Id
    value: Text


class TorchModule(Node):
    """A PyTorch module's output or input; ``call`` counts its invocations from 0."""

    scheme: Literal["torch-module"] = "torch-module"
    module: str
    port: Literal["input", "output"] | None = None
    index: Count | None = None
    call: Count | None = None


class UnknownAddress(Node):
    """An address of a later version: kept, not used."""

    model_config = ConfigDict(
        json_schema_extra={"properties": {"scheme": {"type": "string", "not": {"enum": list(KNOWN_SCHEMES)}}}}
    )

    scheme: Text


def _tag(value: Any) -> str:
    scheme = value.get("scheme") if isinstance(value, dict) else getattr(value, "scheme", None)
    return scheme if scheme in KNOWN_SCHEMES else "unknown"


Address = Annotated[
    Annotated[OnnxValue, Tag("onnx-value")]
    | Annotated[TorchModule, Tag("torch-module")]
    | Annotated[UnknownAddress, Tag("unknown")],
    Discriminator(_tag),
]


class SiteProbe(Node):
    """Tensors of the probe file that a reader compares with its own tap of the site."""

    mean: TensorName
    l2: TensorName


class Site(Node):
    """One tensor value of the model at which statistics were taken.

    Attributes:
        id: opaque.
        label: for people.
        addresses: where it is; an ``onnx-value`` is required when there is a graph.
        dtype: NumPy's name in lower case.
        shape: axis 0 is the batch and has a name, not a number.
        feature_axis: which axis holds the channels.
        feature_count: how many there are.
        probe: what the probe's input gives here.
    """

    id: Id
    label: Text | None = None
    addresses: Annotated[list[Address], Field(min_length=1, max_length=64)]
    dtype: Name
    shape: SiteShape
    feature_axis: Positive | None = None
    feature_count: Positive | None = None
    probe: SiteProbe | None = None

    def onnx_value(self) -> str | None:
        """The value name in the graph, if the site has one."""
        names = (address.value for address in self.addresses if isinstance(address, OnnxValue))
        return next(names, None)


class TensorRef(Node):
    """One tensor of a sidecar: its name there, and the sha256 of its bytes."""

    name: TensorName
    sha256: Sha256

    @classmethod
    def draft(cls, name: str) -> TensorRef:
        """A tensor whose digest the bundle writer fills in."""
        return cls(name=name, sha256=UNKNOWN_SHA256)


class Group(Node):
    """What a record was aggregated over: ``all`` units, or one row for each ``class`` of a label set."""

    by: Name
    label_set: Id | None = None


class Record(Node):
    """One statistic of one site, or of one pair of sites.

    Attributes:
        id: name that the tensors begin with.
        site: where it was taken.
        paired_site: the other site, for kinds that relate two.
        kind: what sort of statistic.
        kind_version: version of the kind's own specification.
        file: the sidecar.
        run: the pass over the data that produced it.
        group: what it was aggregated over.
        features: one of :data:`KNOWN_FEATURES`: ``flattened`` (all axes but the batch are one), ``channel``
            (positions are samples) or ``patch`` (what a kernel covers; the configuration says which kernel).
        feature_count: length of one feature vector.
        tensors: statistic to tensor; authoritative.
        conventions: how to read the numbers, such as ``centering``.
        configuration: the kind's own parameters.
        unit_count: how many units (what privacy counts) went in.
        position_count: how many feature vectors went in.
        mergeable: whether shards of it may still be merged.
        suppressed_groups: groups that were withheld; their rows are zero.
    """

    id: Id
    site: Id
    paired_site: Id | None = None
    kind: Name
    kind_version: Positive = 1
    file: Id
    run: Id
    group: Group
    features: Name
    feature_count: Positive
    tensors: Annotated[dict[Id, TensorRef], Field(min_length=1)]
    conventions: dict[str, str] = Field(default_factory=dict)
    configuration: dict[str, Any] = Field(default_factory=dict)
    unit_count: Count
    position_count: Count
    mergeable: bool
    suppressed_groups: list[Count] = Field(default_factory=list)


class Engine(Node):
    """The software that ran the model."""

    name: Text
    version: Text
    provider: Text | None = None


class Run(Node):
    """One pass over a data set."""

    id: Id
    dataset: Id
    engine: Engine
    mode: Literal["eval"] = "eval"
    batch_size: Positive
    seed: Count
    limit: Positive | None = None
    started: Time | None = None
    finished: Time | None = None


class Dataset(Node):
    """What the statistics are about; never the data itself, nor its counts by class."""

    id: Id
    name: Text
    split: Text | None = None
    unit: Name
    unit_count: Count
    license: Text | None = None
    url: Text | None = None
    contains_personal_data: Literal["yes", "no", "no-assertion"]
    description: Text | None = None


class Privacy(Node):
    """What was done before publication.

    Attributes:
        unit: what is protected, such as ``image`` or ``person``.
        min_unit_count: groups with fewer units were suppressed.
        suppression: ``complementary`` also hides what differences would reveal.
        extremes_policy: what became of smallest and largest values, such as ``unit-clipped``.
        differential_privacy: the mechanism's ledger, or null.
        attestation: who says so, such as ``declared-by-publisher``.
    """

    unit: Name
    min_unit_count: Positive
    suppression: Literal["none", "primary", "complementary"]
    extremes_policy: Name
    differential_privacy: dict[str, Any] | None = None
    attestation: Name


class Licenses(Node):
    """SPDX expressions: the statistics, the model and the data can differ."""

    records: Text | None = None
    model: Text | None = None
    notice: Text | None = None
