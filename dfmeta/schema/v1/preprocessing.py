"""The closed list of preprocessing operations, in the order they are applied."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from dfmeta.schema.v1.base import Node, Text

Pixels = Annotated[int, Field(ge=0, le=65_536)]
Extent = Annotated[int, Field(ge=1, le=65_536)]
Size = Annotated[list[Extent], Field(min_length=2, max_length=2)]
Margins = Annotated[list[Pixels], Field(min_length=4, max_length=4)]
Channels = Annotated[list[float], Field(min_length=1, max_length=65_536)]
Deviation = Annotated[float, Field(gt=0)]


class Rescale(Node):
    """``y = scale * x + offset``, element by element."""

    op: Literal["rescale"] = "rescale"
    scale: float
    offset: float = 0.0


class Resize(Node):
    """Resample to ``size`` = [height, width] pixels."""

    op: Literal["resize"] = "resize"
    size: Size
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    antialias: bool = True


class Pad(Node):
    """Add ``pixels`` on every side, or [top, right, bottom, left], filled with ``value``."""

    op: Literal["pad"] = "pad"
    pixels: Pixels | Margins
    value: float = 0.0


class CenterCrop(Node):
    """Keep the middle ``size`` = [height, width] pixels."""

    op: Literal["center_crop"] = "center_crop"
    size: Size


class Normalize(Node):
    """``y = (x - mean) / std`` for each channel; one entry stands for every channel."""

    op: Literal["normalize"] = "normalize"
    mean: Channels
    std: Annotated[list[Deviation], Field(min_length=1, max_length=65_536)]
    axis: Literal["channel"] = "channel"

    @model_validator(mode="after")
    def _one_std_for_each_mean(self) -> Self:
        if len(self.mean) != len(self.std):
            found = f"{len(self.mean)} means and {len(self.std)} deviations"
            raise PydanticCustomError("wrong-length", "as many", {"found": found, "expected": "as many of each"})
        return self


class Grayscale(Node):
    """Weighted sum of red, green and blue to one channel: 0.299, 0.587, 0.114 (ITU-R BT.601)."""

    op: Literal["grayscale"] = "grayscale"


KNOWN_OPS = ("rescale", "resize", "pad", "center_crop", "normalize", "grayscale")


class UnknownOp(Node):
    """An operation of a later version: kept, and the input it belongs to cannot be made from raw data."""

    model_config = ConfigDict(
        json_schema_extra={"properties": {"op": {"type": "string", "not": {"enum": list(KNOWN_OPS)}}}}
    )

    op: Text


def _tag(value: Any) -> str:
    op = value.get("op") if isinstance(value, dict) else getattr(value, "op", None)
    return op if op in KNOWN_OPS else "unknown"


Op = Annotated[
    Annotated[Rescale, Tag("rescale")]
    | Annotated[Resize, Tag("resize")]
    | Annotated[Pad, Tag("pad")]
    | Annotated[CenterCrop, Tag("center_crop")]
    | Annotated[Normalize, Tag("normalize")]
    | Annotated[Grayscale, Tag("grayscale")]
    | Annotated[UnknownOp, Tag("unknown")],
    Discriminator(_tag),
]
Preprocessing = Annotated[list[Op], Field(max_length=64)]
PREPROCESSING: TypeAdapter[list[Op]] = TypeAdapter(Preprocessing)
