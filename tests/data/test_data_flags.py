"""Preprocessing as flags, as a file, and in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfmeta.data import describe, from_flags
from dfmeta.errors import DataError
from dfmeta.schema import v1


def test_flags_in_their_order() -> None:
    ops = from_flags(scale=0.5, mean=[0.1, 0.2, 0.3], std=(1.0, 2.0, 3.0), pad=2, pad_value=-1.0, resize=32)
    assert ops == [
        v1.Resize(size=[32, 32], interpolation="bilinear", antialias=True),
        v1.Rescale(scale=0.5),
        v1.Normalize(mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0]),
        v1.Pad(pixels=2, value=-1.0),
    ]
    assert describe(ops) == (
        "resize to 32 x 32 (bilinear, antialiased), times 0.5, minus mean (0.1, 0.2, 0.3), "
        "over std (1, 2, 3), pad by 2 with -1"
    )


def test_no_flags_mean_no_operations() -> None:
    assert from_flags() == []
    assert describe([]) == "none: stored values 0 to 255"


def test_every_operation_in_words() -> None:
    listed = [
        {"op": "grayscale"},
        {"op": "center_crop", "size": [3, 4]},
        {"op": "resize", "size": [2, 2], "interpolation": "nearest"},
        {"op": "rescale", "scale": 2.0, "offset": -1.0},
        {"op": "pad", "pixels": [1, 2, 3, 4]},
        {"op": "solarize"},
    ]
    assert describe(v1.PREPROCESSING.validate_python(listed)) == (
        "grayscale, centre crop to 3 x 4, resize to 2 x 2 (nearest), times 2 plus -1, pad by 1/2/3/4 with 0, "
        "solarize (unknown to this version)"
    )


def test_a_file_holds_the_manifests_list(tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    path.write_text(json.dumps([{"op": "rescale", "scale": 2}, {"op": "pad", "pixels": [0, 1, 0, 1]}]))
    assert from_flags(preprocessing_file=path) == [v1.Rescale(scale=2.0), v1.Pad(pixels=[0, 1, 0, 1])]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mean": [0.5]}, "--mean: found no --std, expected both. Add --std."),
        ({"std": [0.5]}, "--std: found no --mean, expected both. Add --mean."),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "preprocessing flags, 0.normalize: found"),
        ({"mean": [0.5], "std": [0.0]}, "preprocessing flags, 0.normalize.std.0: found 0.0"),
        ({"pad": -1}, "found -1"),
        ({"pad": [1, 2]}, "preprocessing flags, 0.pad.pixels"),
        ({"resize": [1, 2, 3]}, "preprocessing flags, 0.resize.size"),
        ({"resize": 0}, "found 0"),
        ({"scale": float("nan")}, "preprocessing flags, 0.rescale.scale: found nan"),
        (
            {"scale": 1.0, "preprocessing_file": "x"},
            "--preprocessing: found a file and flags, expected one of the two",
        ),
        ({"preprocessing_file": "no/such"}, "no/such: found no readable file (No such file or directory)"),
    ],
)
def test_flags_that_make_no_sense(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        from_flags(**flags)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "found no strict JSON"),
        ('[{"op": "grayscale", "op": "grayscale"}]', "the key more than once"),
        ('{"op": "grayscale"}', "found"),
        ('[{"op": "rescale"}]', "0.rescale.scale: found"),
        (
            '[{"op": "rescale", "scale": 1}, {"op": "solarize"}]',
            "[1]: found the operation 'solarize', expected one",
        ),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ops.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        from_flags(preprocessing_file=path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
