"""Preprocessing as people write it: flags and files in, a sentence out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from dfmeta.errors import DataError, SchemaError
from dfmeta.schema import json_strict, v1


def from_flags(
    scale: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pad: int | Sequence[int] | None = None,
    pad_value: float = 0.0,
    resize: int | Sequence[int] | None = None,
    preprocessing_file: Path | str | None = None,
) -> list[v1.Op]:
    """What the command line's flags stand for: resize, scale, mean and std, pad, in that order.

    Args:
        scale: multiply stored values (0..255) by this, such as 1/255.
        mean: subtract from each channel, after scaling.
        std: divide each channel by this, after subtracting ``mean``.
        pad: pixels to add on every side, or on top, right, bottom and left.
        pad_value: what padding is filled with, in the domain after ``mean`` and ``std``.
        resize: height and width, or one number for both; bilinear and antialiased.
        preprocessing_file: a JSON file with the list of operations, in place of all the flags.

    Raises:
        DataError: ``mean`` without ``std`` or the reverse, a file together with flags, or values that the
            format does not allow.
    """
    if preprocessing_file is not None:
        if any(flag is not None for flag in (scale, mean, std, pad, resize)):
            raise DataError("--preprocessing", "a file and flags", "one of the two", "Write all of it in the file.")
        return _read(Path(preprocessing_file))
    if (mean is None) != (std is None):
        found, missing = ("--mean", "--std") if std is None else ("--std", "--mean")
        raise DataError(found, f"no {missing}", "both", f"Add {missing}.")
    ops: list[dict[str, object]] = []
    if resize is not None:
        size = [resize, resize] if isinstance(resize, int) else list(resize)
        ops.append({"op": "resize", "size": size, "interpolation": "bilinear", "antialias": True})
    if scale is not None:
        ops.append({"op": "rescale", "scale": scale})
    if mean is not None and std is not None:
        ops.append({"op": "normalize", "mean": list(mean), "std": list(std), "axis": "channel"})
    if pad is not None:
        pixels = pad if isinstance(pad, int) else list(pad)
        ops.append({"op": "pad", "pixels": pixels, "value": pad_value})
    return _operations(ops, "preprocessing flags")


def _read(path: Path) -> list[v1.Op]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), f"no readable file ({error.strerror})", "a JSON list of operations") from error
    try:
        listed = json_strict.parse(raw, str(path))
    except SchemaError as error:
        raise DataError(str(path), f"no strict JSON ({error.problems[0]})", "a JSON list of operations") from error
    ops = _operations(listed, str(path))
    for number, op in enumerate(ops):
        if isinstance(op, v1.UnknownOp):
            raise DataError(f"{path}[{number}]", f"the operation {op.op!r}", "one that the format lists")
    return ops


def _operations(listed: object, where: str) -> list[v1.Op]:
    try:
        return list(v1.PREPROCESSING.validate_python(listed))
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{where}, {location}", repr(first["input"]), first["msg"]) from error


def describe(ops: Sequence[v1.Op]) -> str:
    """One line for people, such as ``resize to 32 x 32 (bilinear), times 0.00392157, pad by 2 with 0``."""
    return ", ".join(_describe(op) for op in ops) or "none: stored values 0 to 255"


def _describe(op: v1.Op) -> str:
    if isinstance(op, v1.Resize):
        smooth = ", antialiased" if op.antialias and op.interpolation != "nearest" else ""
        return f"resize to {op.size[0]} x {op.size[1]} ({op.interpolation}{smooth})"
    if isinstance(op, v1.Rescale):
        return f"times {op.scale:g}" + (f" plus {op.offset:g}" if op.offset else "")
    if isinstance(op, v1.Normalize):
        return f"minus mean {_numbers(op.mean)}, over std {_numbers(op.std)}"
    if isinstance(op, v1.Pad):
        pixels = str(op.pixels) if isinstance(op.pixels, int) else "/".join(map(str, op.pixels))
        return f"pad by {pixels} with {op.value:g}"
    if isinstance(op, v1.CenterCrop):
        return f"centre crop to {op.size[0]} x {op.size[1]}"
    if isinstance(op, v1.Grayscale):
        return "grayscale"
    return f"{op.op} (unknown to this version)"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
