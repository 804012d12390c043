"""Format 1: the manifest as typed, frozen nodes. ``spec/dfmeta-1.md`` says what they mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dfmeta.schema.grammar import Feature, ReverseDns, Time, Uuid, Version
from dfmeta.schema.v1.base import Node, Text
from dfmeta.schema.v1.model import (
    MEDIA_TYPES,
    SIZE_LIMITS,
    SUFFIXES,
    File,
    GraphRef,
    Input,
    LabelSet,
    Model,
    OpsetImport,
    Output,
    ProbeRef,
    WeightsRef,
)
from dfmeta.schema.v1.preprocessing import (
    KNOWN_OPS,
    PREPROCESSING,
    CenterCrop,
    Grayscale,
    Normalize,
    Op,
    Pad,
    Rescale,
    Resize,
    UnknownOp,
)
from dfmeta.schema.v1.records import (
    KNOWN_FEATURES,
    KNOWN_SCHEMES,
    Address,
    Dataset,
    Engine,
    Group,
    Licenses,
    OnnxValue,
    Privacy,
    Record,
    Run,
    Site,
    SiteProbe,
    TensorRef,
    TorchModule,
    UnknownAddress,
)

__all__ = [
    "FEATURES",
    "FORMAT_VERSION",
    "KNOWN_FEATURES",
    "KNOWN_OPS",
    "KNOWN_SCHEMES",
    "MEDIA_TYPES",
    "PREPROCESSING",
    "SIZE_LIMITS",
    "SUFFIXES",
    "Address",
    "BundleInfo",
    "CenterCrop",
    "Dataset",
    "Engine",
    "File",
    "Generator",
    "GraphRef",
    "Grayscale",
    "Group",
    "Input",
    "LabelSet",
    "Licenses",
    "Manifest",
    "Model",
    "Node",
    "Normalize",
    "OnnxValue",
    "Op",
    "OpsetImport",
    "Output",
    "Pad",
    "Privacy",
    "ProbeRef",
    "Publisher",
    "Record",
    "Rescale",
    "Resize",
    "Run",
    "Site",
    "SiteProbe",
    "TensorRef",
    "TorchModule",
    "UnknownAddress",
    "UnknownOp",
    "WeightsRef",
]

FORMAT_VERSION = "1.0"
FEATURES: frozenset[str] = frozenset()
"""Required features that this reader understands: format 1.0 defines none."""


class Publisher(Node):
    """Who releases the bundle."""

    name: Text
    url: Text | None = None


class Generator(Node):
    """The software that wrote the bundle."""

    name: Text
    version: Text


class BundleInfo(Node):
    """The release as a whole; ``id`` stays, ``version`` changes with each release."""

    id: Uuid
    version: Text
    created: Time
    title: Text | None = None
    description: Text | None = None
    publisher: Publisher | None = None
    generator: Generator | None = None


class Manifest(Node):
    """``dfmeta.json``: describes and pins every other member of a bundle."""

    schema_: str | None = Field(default=None, alias="$schema")
    format: Literal["dfmeta"] = "dfmeta"
    format_version: Version = FORMAT_VERSION
    required_features: Annotated[list[Feature], Field(max_length=256)] = Field(default_factory=list)
    bundle: BundleInfo
    files: Annotated[list[File], Field(min_length=1, max_length=1024)]
    model: Model
    sites: list[Site] = Field(default_factory=list)
    records: list[Record] = Field(default_factory=list)
    runs: list[Run] = Field(default_factory=list)
    datasets: list[Dataset] = Field(default_factory=list)
    privacy: Privacy | None = None
    licenses: Licenses | None = None
    extensions: dict[ReverseDns, Any] = Field(default_factory=dict)

    def file(self, id: str) -> File | None:
        """The member with this id."""
        return next((file for file in self.files if file.id == id), None)

    def site(self, id: str) -> Site | None:
        """The site with this id."""
        return next((site for site in self.sites if site.id == id), None)

    def record(self, id: str) -> Record | None:
        """The record with this id."""
        return next((record for record in self.records if record.id == id), None)

    def label_set(self, id: str) -> LabelSet | None:
        """The label set with this id."""
        return next((labels for labels in self.model.label_sets if labels.id == id), None)
