"""Options that several verbs share, and what their text means."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta._catalog import STUDENTS, SYNTHESIS
from dfmeta.errors import OutputExists

if TYPE_CHECKING:
    from dfmeta.schema import v1


# What a manifest can hold and every generator takes.
_LARGEST_SEED = 2**32 - 1
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_DATA = "PATH[:SPLIT] of a .npz, .safetensors, .zip or folder of images; or digits, digits:train, digits:test."

BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that holds dfmeta.json.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, for errors too.")]
Seed = Annotated[
    int, typer.Option(metavar="N", min=0, max=_LARGEST_SEED, help="Of everything that is drawn at random.")
]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Use that many units only, drawn with --seed.")]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Units in a forward pass.")]
Data = Annotated[str, typer.Option(metavar="PATH[:SPLIT]", help=_DATA)]
DataOrNone = Annotated[str | None, typer.Option(metavar="PATH[:SPLIT]", help=_DATA)]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"How inputs are made: {', '.join(SYNTHESIS.names())} (or NAME:VARIANT where it has any).",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="What does the work: cpu, cuda, cuda:1, mps.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; may be given many times."),
]
Student = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"What to train: {', '.join(STUDENTS.names())} (NAME:VARIANT where it is made from the teacher, such as "
        "scaled:0.5), or module:callable of your own.",
    ),
]

Board = Annotated[
    str, typer.Option(metavar="NAME", help="Take RAM and flash of this board: stm32l4r5, max78000, esp32-s3.")
]
Ram = Annotated[str | None, typer.Option(metavar="N[K|M]", help="Bytes for values while it runs; 256K is 262,144.")]
Flash = Annotated[
    str | None, typer.Option(metavar="N[K|M]", help="Bytes for constants, and for code where that is predicted.")
]
Fpu = Annotated[
    bool | None,
    typer.Option(
        "--fpu/--no-fpu",
        help="Whether the core has a floating-point unit, for the code of c-codegen; the board's word, or yes.",
        show_default=False,
    ),
]

Scale = Annotated[str | None, typer.Option(metavar="X", help="Multiply stored values by this: 0.0039 or 1/255.")]
Mean = Annotated[str | None, typer.Option(metavar="A[,B,C]", help="Then subtract from each channel.")]
Std = Annotated[str | None, typer.Option(metavar="A[,B,C]", help="Then divide each channel by this.")]
Pad = Annotated[str | None, typer.Option(metavar="N[,N,N,N]", help="Then pad: every side, or top,right,bottom,left.")]
PadValue = Annotated[str, typer.Option(metavar="X", help="What to pad with, after mean and std.")]
Resize = Annotated[str | None, typer.Option(metavar="H[,W]", help="First of all resize (bilinear, antialiased).")]
Preprocessing = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="The list of operations, in place of these flags.")
]


def shard_part(text: str | None) -> tuple[int, int]:
    """``"2/8"`` as (2, 8); (1, 1) for none.

    Raises:
        typer.BadParameter: no such text, or a part that is not one of them.
    """
    if text is None:
        return 1, 1
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise typer.BadParameter(f"{text!r} is not I/N, with I from 1 to N.", param_hint="'--part'")
    return int(number), int(parts)


def shard_name(text: str) -> str:
    """The name of a shard, as a file may be called.

    Raises:
        typer.BadParameter: other text.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text) is None:
        raise typer.BadParameter(f"{text!r} is no name of letters, digits, '.', '_' and '-'.", param_hint="'--shard'")
    return text


def torchrun() -> tuple[bool, int]:
    """Whether torchrun started this process beside others, and its rank among them."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size != "1" and "RANK" in os.environ, int(os.environ.get("RANK", "0")) if size != "1" else 0


def preprocessing(
    scale: str | None,
    mean: str | None,
    std: str | None,
    pad: str | None,
    pad_value: str,
    resize: str | None,
    file: Path | None,
) -> list[v1.Op]:
    """The operations that the flags stand for; none where none was given.

    Raises:
        typer.BadParameter: text that is no number, or the wrong count of them.
        DataError: flags that contradict each other.
    """
    from dfmeta.data import from_flags

    return from_flags(
        scale=numbers("--scale", scale, 1)[0] if scale is not None else None,
        mean=numbers("--mean", mean) if mean is not None else None,
        std=numbers("--std", std) if std is not None else None,
        pad=_one_or_all(whole("--pad", pad, 1, 4)) if pad is not None else None,
        pad_value=numbers("--pad-value", pad_value, 1)[0],
        resize=_one_or_all(whole("--resize", resize, 1, 2)) if resize is not None else None,
        preprocessing_file=file,
    )


def _one_or_all(values: list[int]) -> int | list[int]:
    return values[0] if len(values) == 1 else values


def numbers(option: str, text: str, *lengths: int) -> list[float]:
    """``"0.5,1/255"`` as numbers; a fraction saves its user a calculator.

    Raises:
        typer.BadParameter: no number, or not as many as ``lengths`` allows.
    """
    try:
        found = [_number(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is no number.", param_hint=repr(option)) from None
    _count(option, text, len(found), lengths)
    return found


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(text)


def whole(option: str, text: str, *lengths: int) -> list[int]:
    """``"32,24"`` as whole numbers.

    Raises:
        typer.BadParameter: no whole number, or not as many as ``lengths`` allows.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number.", param_hint=repr(option)) from None
    _count(option, text, len(found), lengths)
    return found


def _count(option: str, text: str, found: int, lengths: Sequence[int]) -> None:
    if lengths and found not in lengths:
        wanted = " or ".join(map(str, lengths))
        raise typer.BadParameter(f"{text!r} is {found} numbers, expected {wanted}.", param_hint=repr(option))


def size(option: str, text: str | None) -> int | None:
    """``"256K"`` as 262,144; None for none.

    Raises:
        typer.BadParameter: no number of bytes above 0.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no number of bytes, such as 65536, 256K or 1M.", param_hint=repr(option))
    return int(found[1]) * _UNITS[found[2].upper()]


def names(option: str, text: str) -> list[str]:
    """``"a,b"`` as names.

    Raises:
        typer.BadParameter: an empty name.
    """
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise typer.BadParameter(f"{text!r} has an empty name.", param_hint=repr(option))
    return found


def settings(
    given: Sequence[str] | None, option: str = "--set", flags: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping.

    Args:
        given: as the command line has it.
        option: that gave it.
        flags: keys that have a flag of their own, and that flag: one setting is given in one way.

    Raises:
        typer.BadParameter: no ``=``, a key given twice, or one with a flag of its own.
    """
    found: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint=repr(option))
        if key in found:
            raise typer.BadParameter(f"{key!r} is given twice.", param_hint=repr(option))
        if key in flags:
            raise typer.BadParameter(f"{key!r} has a flag of its own: {flags[key]}.", param_hint=repr(option))
        found[key] = value
    return found


def require_new(out: Path, suffix: str = "", option: str = "--out") -> None:
    """Refuse an output that could not be written, before the work and not after it.

    Args:
        out: a file or folder to make.
        suffix: what its name must end in, so that other verbs read it as what it is.
        option: what asked for it.

    Raises:
        OutputExists: something is there.
        typer.BadParameter: another suffix, or no folder to write into.
    """
    if suffix and out.suffix.lower() != suffix:
        raise typer.BadParameter(f"{str(out)!r} does not end in {suffix}.", param_hint=repr(option))
    if os.path.lexists(out):
        raise OutputExists(out)
    parent = out.absolute().parent
    if not parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(parent)!r}.", param_hint=repr(option))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"the folder {str(parent)!r} cannot be written to.", param_hint=repr(option))


def find_own_code(spec: str) -> None:
    """Let ``module:callable`` name the user's own file in the folder where they stand, as ``python -m`` would.

    The folder comes last on the path, so that no file there hides a library.
    """
    if ":" in spec and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
