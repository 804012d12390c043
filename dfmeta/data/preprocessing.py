"""The closed list of operations that turn stored images into what a model reads.

Every operation maps ``[n, c, h, w]`` float32 to ``[n, c', h', w']`` float32, in the order of the list. Those
that change values treat every pixel alike and are monotone, so the range after the list follows from running
them on two pixels, the darkest and the brightest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dfmeta.data.columns import Array
from dfmeta.errors import DataError
from dfmeta.schema import v1

Images = NDArray[np.float32]

# ITU-R BT.601 luma, as Pillow and OpenCV compute it.
LUMA = (0.299, 0.587, 0.114)
# Of one batch; a manifest may ask for any size, and running out of memory is no error message.
MAX_ELEMENTS = 1 << 31


def preprocess(images: Array, ops: Sequence[v1.Op], where: str = "preprocessing") -> Images:
    """Apply a manifest's preprocessing to stored images.

    Args:
        images: uint8 ``[n, h, w]`` or ``[n, h, w, c]``.
        ops: the operations, in order.
        where: what to name in a message.

    Returns:
        float32 ``[n, c, h, w]``; without operations the stored values 0..255.

    Raises:
        DataError: not uint8 images, or an operation that does not fit them or that is unknown.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        found = f"{images.dtype.name} {list(images.shape)}"
        raise DataError(where, found, "uint8 [n, h, w] or [n, h, w, c]", "Give other arrays already preprocessed.")
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    values: Images = np.ascontiguousarray(channels_first, dtype=np.float32)
    limits = _extremes(values.shape[1])
    for number, op in enumerate(ops):
        here = f"{where}[{number}] ({op.op})"
        limits = _extremes_after(limits, op, here)
        if isinstance(op, v1.Resize):
            values = _resize(values, op, limits, here)
        elif isinstance(op, v1.Pad):
            values = _pad(values, op, here)
        elif isinstance(op, v1.CenterCrop):
            values = _center_crop(values, op, here)
        else:
            values = _pixelwise(values, op, here)
    return values


def input_bounds(ops: Sequence[v1.Op], channels: int, where: str = "preprocessing") -> tuple[Images, Images]:
    """The range of values that preprocessing can give, padding included.

    Args:
        ops: the operations, in order.
        channels: how many channels the stored images have.
        where: what to name in a message.

    Returns:
        The least and the greatest value of each channel after the list, float32 ``[c]`` each. No preprocessed
        image leaves this range, and without padding both ends are reached.

    Raises:
        DataError: an operation that does not fit, or that is unknown.
    """
    limits = _extremes(channels)
    for number, op in enumerate(ops):
        limits = _extremes_after(limits, op, f"{where}[{number}] ({op.op})")
    return limits[0, :, 0, 0], limits[1, :, 0, 0]


def _extremes(channels: int) -> Images:
    """The darkest and the brightest stored pixel: ``[2, c, 1, 1]``."""
    return np.stack([np.zeros((channels, 1, 1)), np.full((channels, 1, 1), 255.0)]).astype(np.float32)


def _extremes_after(limits: Images, op: v1.Op, where: str) -> Images:
    if isinstance(op, v1.Resize | v1.CenterCrop):
        return limits
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if isinstance(op, v1.Pad):
            ends = np.concatenate([limits, np.full_like(limits[:1], op.value)]) if any(_sides(op)) else limits
        else:
            ends = _pixelwise(limits, op, where)
    if not np.isfinite(ends).all():
        raise DataError(where, "values beyond the range of float32", "finite values", "Check its numbers.")
    # A negative scale swaps the ends.
    return np.stack([ends.min(axis=0), ends.max(axis=0)])


def _pixelwise(values: Images, op: v1.Op, where: str) -> Images:
    """An operation that treats every pixel alike and alone; images and their extremes go through here."""
    if isinstance(op, v1.Rescale):
        return values * np.float32(op.scale) + np.float32(op.offset)
    if isinstance(op, v1.Normalize):
        return _normalize(values, op, where)
    if isinstance(op, v1.Grayscale):
        return _grayscale(values, where)
    fix = "Update dfmeta, or give arrays that are already preprocessed."
    raise DataError(where, f"the operation {op.op!r}", "an operation that this version knows", fix)


def _normalize(values: Images, op: v1.Normalize, where: str) -> Images:
    channels = values.shape[1]
    if len(op.mean) not in (1, channels):
        fix = "Give one number for each channel of the images, or one for all."
        raise DataError(where, f"{len(op.mean)} means and deviations", f"{channels}, one a channel", fix)
    mean = np.asarray(op.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(op.std, dtype=np.float32)[:, None, None]
    normalized: Images = (values - mean) / std
    return normalized


def _grayscale(values: Images, where: str) -> Images:
    channels = values.shape[1]
    if channels == 1:
        return values
    if channels != len(LUMA):
        raise DataError(where, f"{channels} channels", "3 (RGB) or 1", "Drop the operation, or convert the images.")
    red, green, blue = (values[:, channel] * np.float32(weight) for channel, weight in enumerate(LUMA))
    luma: Images = (red + green + blue)[:, None]
    return luma


def _resize(values: Images, op: v1.Resize, limits: Images, where: str) -> Images:
    """Resize with half-pixel centres, the width first; Pillow's filters when antialiased.

    As in Pillow, bicubic overshoot is clipped after each axis: there to 0..255, here to the range that the
    operations so far can reach. Pillow also rounds after each axis, where nothing is rounded here, and its
    later versions take the height first when that is less work.
    """
    height, width = op.size
    _check_size(values, (height, width), where)
    if op.interpolation == "nearest":
        rows, columns = _nearest(values.shape[2], height), _nearest(values.shape[3], width)
        return values[:, :, rows[:, None], columns]
    for size in ((values.shape[2], width), (height, width)):
        resized = F.interpolate(
            torch.from_numpy(values),
            size=size,
            mode=op.interpolation,
            align_corners=False,
            antialias=op.antialias,
        )
        values = np.clip(resized.numpy(), limits[0], limits[1])
    return values


def _nearest(size: int, new_size: int) -> NDArray[np.int64]:
    """The pixel that holds each new pixel's centre, in integers; on an edge it is the later one."""
    return (2 * np.arange(new_size, dtype=np.int64) + 1) * size // (2 * new_size)


def _check_size(values: Images, size: tuple[int, int], where: str) -> None:
    elements = values.shape[0] * values.shape[1] * size[0] * size[1]
    if elements > MAX_ELEMENTS:
        found = f"{values.shape[0]} images of {size[0]} x {size[1]}"
        raise DataError(where, found, f"at most {MAX_ELEMENTS} numbers a batch", "Use smaller batches or images.")


def _pad(values: Images, op: v1.Pad, where: str) -> Images:
    top, right, bottom, left = _sides(op)
    height, width = values.shape[2:]
    _check_size(values, (top + height + bottom, left + width + right), where)
    widths = ((0, 0), (0, 0), (top, bottom), (left, right))
    return np.pad(values, widths, constant_values=np.float32(op.value))


def _sides(op: v1.Pad) -> tuple[int, int, int, int]:
    if isinstance(op.pixels, int):
        return (op.pixels,) * 4
    top, right, bottom, left = op.pixels
    return top, right, bottom, left


def _center_crop(values: Images, op: v1.CenterCrop, where: str) -> Images:
    """Cut out the middle; an odd margin leaves its extra pixel at the bottom and the right."""
    (height, width), (new_height, new_width) = values.shape[2:], op.size
    if new_height > height or new_width > width:
        found, expected = f"{height} x {width} images", f"at least {new_height} x {new_width}"
        raise DataError(where, found, expected, "Put resize or pad before center_crop.")
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return np.ascontiguousarray(values[:, :, top : top + new_height, left : left + new_width])
