"""The real handwritten digits that ship inside scikit-learn, so that a first try needs no download."""

from __future__ import annotations

import numpy as np

from dfmeta.data.columns import UNNAMED, ArrayColumn, Column, Content
from dfmeta.errors import DataError, MissingExtra

NAME = "digits"
SPLITS = ("train", "test")
_TEST_EVERY = 5


def open_digits(split: str | None) -> Content:
    """Open the 1,797 digits: ``x`` uint8 ``[n, 8, 8]``, stored as 0..16 and scaled to 0..255.

    Within each class every fifth image, in stored order, is ``test`` (20 %) and the others are ``train``
    (80 %). Without a split it is all of them.

    Source: scikit-learn's copy of the test part of the UCI "Optical Recognition of Handwritten Digits".

    Raises:
        MissingExtra: scikit-learn is not installed.
        DataError: no such split.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"{NAME}:{split}", f"split {split!r}", f"one of {', '.join(SPLITS)}", f"Say {NAME}:train.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("sklearn", "digits", "the data set 'digits'") from error
    stored = load_digits()
    labels = np.asarray(stored.target, dtype=np.int64)
    images = np.rint(np.asarray(stored.images, dtype=np.float64) * 255 / 16).astype(np.uint8)
    chosen = np.ones(len(labels), dtype=np.bool_) if split is None else _is_test(labels) == (split == "test")
    names = tuple(str(name) for name in stored.target_names)
    columns: dict[str, Column] = {UNNAMED: ArrayColumn(UNNAMED, images[chosen])}
    return Content(columns, labels[chosen], names, split)


def _is_test(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Every fifth unit of each class; by position, so that no generator's version can change the split."""
    test = np.zeros(labels.shape, dtype=np.bool_)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return test
