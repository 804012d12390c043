"""The model that the bundle releases: files, graph, inputs, outputs, labels, probe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dfmeta.schema.grammar import Id, MemberPath, Name, Sha256
from dfmeta.schema.v1.base import Count, Node, Positive, Shape, Text
from dfmeta.schema.v1.preprocessing import Preprocessing

Opset = Annotated[int, Field(ge=1, le=1_000_000)]
Tolerance = Annotated[float, Field(ge=0)]

MEDIA_TYPES = {
    "model.graph": "application/onnx",
    "model.weights": "application/vnd.safetensors",
    "records": "application/vnd.safetensors",
    "probe": "application/vnd.safetensors",
}
SUFFIXES = {
    "model.graph": ".onnx",
    "model.weights": ".safetensors",
    "records": ".safetensors",
    "probe": ".safetensors",
}
# Members that are read whole: no more than fits in memory, and for ONNX in one protobuf message.
SIZE_LIMITS = {"model.graph": 2**31 - 1, "probe": 2**28}
UNKNOWN_SHA256 = "0" * 64


class File(Node):
    """A member of the bundle: where it is, what it is for, and the bytes it must hold.

    Attributes:
        id: name that the rest of the manifest uses.
        role: ``model.graph``, ``model.weights``, ``records``, ``probe``; any other is kept and never opened.
        path: where it is, relative to the manifest.
        media_type: of the bytes.
        size: in bytes.
        sha256: of all bytes.
        header_sha256: of a sidecar's 8 length bytes and header; required for role ``records``.
    """

    id: Id
    role: Name
    path: MemberPath
    media_type: Text
    size: Count
    sha256: Sha256
    header_sha256: Sha256 | None = None

    @classmethod
    def draft(cls, id: str, role: str, path: str, media_type: str | None = None) -> File:
        """A member whose size and digests the bundle writer fills in.

        Args:
            id: name that the rest of the manifest uses.
            role: what the member is for.
            path: where it will be, relative to the manifest.
            media_type: of the bytes; the role's own when left out.
        """
        kind = media_type or MEDIA_TYPES.get(role, "application/octet-stream")
        return cls(id=id, role=role, path=path, media_type=kind, size=0, sha256=UNKNOWN_SHA256)


class OpsetImport(Node):
    """One ONNX operator set that the graph uses."""

    domain: str
    version: Opset


class GraphRef(Node):
    """The graph: which file, and which ONNX it is written in."""

    file: Id
    ir_version: Positive
    opset_import: Annotated[list[OpsetImport], Field(min_length=1, max_length=64)]


class WeightsRef(Node):
    """The weights beside or instead of a graph: which files, and whose tensor names they use."""

    files: Annotated[list[Id], Field(min_length=1)]
    framework: Text | None = None


class Input(Node):
    """One input of the model.

    Attributes:
        name: the graph's own name.
        dtype: NumPy's name in lower case, such as ``float32``.
        shape: integers, and names for free dimensions.
        axes: what each axis is, such as ``batch``, ``channel``, ``height``, ``width``.
        modality: such as ``image``.
        preprocessing: from raw data to this input, in order.
    """

    name: Text
    dtype: Name
    shape: Shape
    axes: list[Text] | None = None
    modality: Text | None = None
    preprocessing: Preprocessing = Field(default_factory=list)


class Output(Node):
    """One output of the model.

    Attributes:
        name: the graph's own name.
        dtype: NumPy's name in lower case.
        shape: integers, and names for free dimensions.
        axes: what each axis is.
        semantics: such as ``logits`` or ``probabilities``.
        labels: the label set that names the classes.
    """

    name: Text
    dtype: Name
    shape: Shape
    axes: list[Text] | None = None
    semantics: Text | None = None
    labels: Id | None = None


class LabelSet(Node):
    """Names of classes; a class is its position in the list."""

    id: Id
    names: Annotated[list[Text], Field(min_length=1)]


class ProbeRef(Node):
    """A synthetic input with the outputs to expect: ``|got - expected| <= atol + rtol * |expected|``."""

    file: Id
    atol: Tolerance
    rtol: Tolerance


class Model(Node):
    """The model that the bundle releases."""

    name: Text
    version: Text | None = None
    architecture: Text | None = None
    parameter_count: Count | None = None
    graph: GraphRef | None = None
    weights: WeightsRef | None = None
    inputs: Annotated[list[Input], Field(min_length=1)]
    outputs: Annotated[list[Output], Field(min_length=1)]
    label_sets: Annotated[list[LabelSet], Field(max_length=1024)] = Field(default_factory=list)
    probe: ProbeRef | None = None
