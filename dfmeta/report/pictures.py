"""Pictures of what was reconstructed, beside what it should look like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfmeta.bundle import write_file
from dfmeta.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Images = NDArray[np.floating]

_INCHES_A_CELL = 0.72
_PIXELS_AN_INCH = 160
# In cells: room for a letter, on the left at least, for headings, between mean and samples, around an image.
_LETTER, _LEFT, _TOP, _GAP, _MARGIN = 0.16, 0.55, 0.5, 0.35, 0.04
_SMALL, _LARGE = 8.5, 10.0


def save_digits_picture(
    path: str | Path,
    synthetic: Images,
    labels: NDArray[np.integer],
    means: Images,
    *,
    names: Sequence[str] | None = None,
    samples: int = 10,
    title: str = "Made from the records alone",
) -> Path:
    """Save a grid of images as a PNG: one row a class, its mean on the left, samples of it beside.

    Every image is stretched between its own least and greatest value, so that only its pattern shows.

    Args:
        path: file to write; must not exist.
        synthetic: ``[n, c, h, w]``, one or three channels.
        labels: ``[n]`` the class of each.
        means: ``[classes, c, h, w]`` mean image of each class.
        names: of the classes; their numbers where there are none.
        samples: most images in a row; the first ones of each class are shown.
        title: above the samples.

    Raises:
        MissingExtra: matplotlib is not installed.
        DataError: shapes that do not fit each other.
        OutputExists: ``path`` is taken.
    """
    _check(synthetic, labels, means, names)
    figure = _grid(means, synthetic, labels, [*(names or map(str, range(len(means))))], samples, title)
    stream = io.BytesIO()
    # Without the drawing software's name and version the same pixels are the same bytes.
    figure.savefig(stream, format="png", dpi=_PIXELS_AN_INCH, metadata={"Software": None})
    write_file(path, stream.getvalue())
    return Path(path)


def _check(synthetic: Images, labels: NDArray[np.integer], means: Images, names: Sequence[str] | None) -> None:
    for what, images in (("synthetic images", synthetic), ("class means", means)):
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(what, f"shape {list(images.shape)}", "[n, 1 or 3, height, width]")
    if len(labels) != len(synthetic):
        raise DataError("labels", f"{len(labels)} of them", f"one for each of {len(synthetic)} images")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(means):
        raise DataError("labels", f"{labels.min()}..{labels.max()}", f"0..{len(means) - 1}")
    if names is not None and len(names) != len(means):
        raise DataError("class names", f"{len(names)} of them", f"one for each of {len(means)} classes")


def _grid(
    means: Images,
    synthetic: Images,
    labels: NDArray[np.integer],
    names: Sequence[str],
    samples: int,
    title: str,
) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "a picture of the synthetic images") from error
    left = max(_LEFT, _LETTER * max(map(len, names), default=0) + _MARGIN)
    first = left + 1 + _GAP
    width, height = first + samples + _MARGIN, _TOP + len(means) + _MARGIN
    figure = Figure(figsize=(width * _INCHES_A_CELL, height * _INCHES_A_CELL))

    def write(x: float, y: float, text: str, points: float, align: str) -> None:
        # A class may be called anything: nothing in its name is a formula.
        place = (x / width, 1 - y / height)
        figure.text(*place, text, fontsize=points, ha=align, va="center", parse_math=False)

    def show(x: float, y: float, image: Images) -> None:
        side = 1 - 2 * _MARGIN
        place = ((x + _MARGIN) / width, 1 - (y + 1 - _MARGIN) / height, side / width, side / height)
        axes = figure.add_axes(place)
        axes.set_axis_off()
        axes.imshow(_stretched(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")

    write(left + 0.5, _TOP / 2, "class mean", _SMALL, "center")
    write(first + _MARGIN, _TOP / 2, title, _SMALL, "left")
    for row, (mean, name) in enumerate(zip(means, names, strict=True)):
        write(left - 3 * _MARGIN, _TOP + row + 0.5, name, _LARGE, "right")
        show(left, _TOP + row, mean)
        for column, image in enumerate(synthetic[labels == row][:samples]):
            show(first + column, _TOP + row, image)
    return figure


def _stretched(image: Images) -> Images:
    """``[h, w]`` or ``[h, w, 3]`` between 0 and 1."""
    low, high = float(image.min()), float(image.max())
    pixels: Images = (image - low) / (high - low if high > low else 1.0)
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
