"""What a target profile says: rules of a runtime or chip, each with where it is written, and what boards hold.

A profile is one JSON file of this folder; these models are its schema. A rule stands for one sentence of a vendor's
documentation, or for one measurement, and names it.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Text = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Model):
    """Where a rule is written.

    Attributes:
        title: of the page or package.
        url: of it.
        version: of the tool that it speaks of.
        date: when that was so.
        evidence: what it is: the vendor's documentation, source code that was read, or a run of the package.
    """

    title: Text
    url: Annotated[str, Field(pattern=r"^https://\S+$")]
    version: Text
    date: date
    evidence: Literal["documentation", "source-code", "measured"]


class _Rule(_Model):
    """What all rules have.

    Attributes:
        source: id of its source.
        advice: whether breaking it costs speed or safety only, and does not fail a check.
        fix: what to do, in place of the usual sentence.
    """

    source: Name
    advice: bool = False
    fix: str = ""


class Operators(_Rule):
    """Only these operators, of the default domain."""

    rule: Literal["operators"]
    allowed: tuple[str, ...]


class Opset(_Rule):
    """Operator set of the default domain."""

    rule: Literal["opset"]
    least: int = 1
    most: int


class IrVersion(_Rule):
    """Version of the container."""

    rule: Literal["ir-version"]
    most: int


class StaticShapes(_Rule):
    """All sizes known; with ``batch``, axis 0 of every input is that."""

    rule: Literal["static-shapes"]
    batch: int | None = None


class Rank(_Rule):
    """Axes of a value; of the ends of these operators only, where some are named."""

    rule: Literal["rank"]
    most: int
    operators: tuple[str, ...] = ()


class AxisSize(_Rule):
    """Size of an axis of a value."""

    rule: Literal["axis-size"]
    most: int


class Types(_Rule):
    """Element types of values that a node reads or writes; whole numbers that steer shapes are left out."""

    rule: Literal["types"]
    allowed: tuple[str, ...]


class Attribute(_Rule):
    """An attribute of some operators: each of its numbers, where it is written at all."""

    rule: Literal["attribute"]
    operators: tuple[str, ...]
    attribute: str
    least: int | None = None
    most: int | None = None
    values: tuple[int | str, ...] | None = None


class Window(_Rule):
    """Dilated window of a convolution or pooling: its height, its area; ``padded``: only where it is padded."""

    rule: Literal["window"]
    operators: tuple[str, ...]
    height: int | None = None
    width: int | None = None
    area: int | None = None
    padded: bool = False


class Groups(_Rule):
    """A convolution has one group, or as many as it reads channels."""

    rule: Literal["groups"]


class ConstantWeights(_Rule):
    """Weights of these operators are initializers, quantized or not."""

    rule: Literal["constant-weights"]
    operators: tuple[str, ...]


class Form(_Rule):
    """How integers are written: ``none``, a float model; ``qdq``; ``qoperator``; or either of the last two."""

    rule: Literal["form"]
    allowed: tuple[Literal["none", "qdq", "qoperator"], ...]


class Values(_Rule):
    """Quantized values: types, whether 0 stands for 0, whether scales are powers of two."""

    rule: Literal["values"]
    dtypes: tuple[str, ...]
    symmetric: bool = False
    power_of_two: bool = False


class Weights(_Rule):
    """Quantized weights.

    Attributes:
        dtypes: element types.
        least: smallest code.
        symmetric: whether zero points are 0.
        power_of_two: whether scales are.
        per_channel: operators that take a scale for each output channel; None for all.
        absolute_sum: most that the absolute codes of one weight add up to.
    """

    rule: Literal["weights"]
    dtypes: tuple[str, ...]
    least: int = -128
    symmetric: bool = True
    power_of_two: bool = False
    per_channel: tuple[str, ...] | None = None
    absolute_sum: int | None = None


class Bias(_Rule):
    """Type of the bias of an operator with quantized weights and values."""

    rule: Literal["bias"]
    dtype: Literal["int32", "float32"]


class ChannelMultiple(_Rule):
    """Output channels of dense convolutions and products, but for the last one, are a multiple of this."""

    rule: Literal["channel-multiple"]
    of: int


Rule = Annotated[
    Operators
    | Opset
    | IrVersion
    | StaticShapes
    | Rank
    | AxisSize
    | Types
    | Attribute
    | Window
    | Groups
    | ConstantWeights
    | Form
    | Values
    | Weights
    | Bias
    | ChannelMultiple,
    Field(discriminator="rule"),
]


class Board(_Model):
    """What one board or chip holds.

    Attributes:
        name: to ask for it.
        ram: bytes for everything that changes while a model runs.
        flash: bytes for everything that does not.
        source: id of its source.
        fpu: whether its core computes with floats in hardware.
        note: what the numbers leave out.
    """

    name: Name
    ram: Annotated[int, Field(gt=0)]
    flash: Annotated[int, Field(gt=0)]
    source: Name
    fpu: bool = True
    note: str = ""


class Code(_Model):
    """How much program the target's tool makes of a graph: a fit, for small networks in 8 bits.

    Attributes:
        source: id of its source.
        base_bytes: what every program has.
        bytes_per_node: more for each node of the graph.
        soft_float_bytes: more for a core without a floating-point unit.
        note: what stands behind the numbers.
    """

    source: Name
    base_bytes: Annotated[int, Field(ge=0)]
    bytes_per_node: Annotated[int, Field(ge=0)]
    soft_float_bytes: Annotated[int, Field(ge=0)]
    note: str = ""

    def bytes(self, nodes: int, *, fpu: bool) -> int:
        """Bytes of program for a graph of so many nodes, on a core with a floating-point unit or without."""
        return self.base_bytes + self.bytes_per_node * nodes + (0 if fpu else self.soft_float_bytes)


class Target(_Model):
    """One runtime or chip.

    Attributes:
        profile: of the schema.
        name: of the file.
        title: for people.
        reads: what its tool takes from us.
        memory: how values get their places: planned by lifetime in one ``arena``, or each its own (``temporaries``), as
            generated C has them.
        code: how much program its tool makes of a graph; None where nobody has measured it.
        quantizes: whether its own tool makes the integers from a float model; costs are then those of 8 bits.
        rules: what a model has to be.
        boards: where it runs.
        sources: by id.
        notes: what a reader should know, in sentences.
    """

    profile: Literal["dfmeta.target/1"]
    name: Name
    title: Text
    reads: Literal["onnx", "onnx-float"]
    memory: Literal["arena", "temporaries"] = "arena"
    code: Code | None = None
    quantizes: bool = False
    rules: tuple[Rule, ...]
    boards: tuple[Board, ...] = ()
    sources: dict[Name, Source]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sources_are_used_and_there(self) -> Target:
        code = () if self.code is None else (self.code,)
        named = {item.source for item in (*self.rules, *self.boards, *code)}
        if named != set(self.sources):
            raise ValueError(f"sources {sorted(named ^ set(self.sources))} are missing, or nothing names them")
        return self
