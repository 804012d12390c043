"""Making another data set's images fit a model: other sizes and colours, the same kind of picture."""

from __future__ import annotations

from dfmeta.data.sources import DataSource
from dfmeta.schema import v1


def fitted_input(entry: v1.Input, source: DataSource) -> v1.Input:
    """A model input whose preprocessing begins by giving the source's images the size and colour that it expects.

    Args:
        entry: the model's input. One that is no image, or whose preprocessing resizes, is returned as it is.
        source: the other data set.
    """
    if len(entry.shape) != 4 or not source.raw:
        return entry
    channels, height, width = entry.shape[1:]
    first: list[v1.Op] = []
    colour = len(source.item_shape) == 3 and source.item_shape[-1] == 3
    if colour and channels == 1 and not any(isinstance(op, v1.Grayscale) for op in entry.preprocessing):
        first.append(v1.Grayscale())
    sizes = _stored_size(entry, height, width)
    if sizes is not None and sizes != list(source.item_shape[:2]):
        first.insert(0, v1.Resize(size=sizes, interpolation="bilinear", antialias=True))
    return entry.model_copy(update={"preprocessing": [*first, *entry.preprocessing]})


def _stored_size(entry: v1.Input, height: int | str, width: int | str) -> list[int] | None:
    """The size from which padding alone leads to the input's; None where the preprocessing chooses it itself."""
    if isinstance(height, str) or isinstance(width, str):
        return None
    if any(isinstance(op, v1.Resize | v1.CenterCrop) for op in entry.preprocessing):
        return None
    for op in entry.preprocessing:
        if isinstance(op, v1.Pad):
            top, right, bottom, left = [op.pixels] * 4 if isinstance(op.pixels, int) else op.pixels
            height, width = height - top - bottom, width - left - right
    return [height, width]
