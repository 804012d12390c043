"""Bad data sets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Command = Callable[..., Any]


def images(count: int = 100, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side)).astype(np.uint8)


def labels(count: int = 100) -> np.ndarray:
    return np.arange(count) % 10


BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "wrong-shape": ({"x": images(side=9), "y": labels()}, "[1, 8, 8]"),
    "wrong-dtype": ({"x": np.zeros((100, 1, 8, 8)), "y": labels()}, "float32"),
    "not-finite": ({"x": np.full((100, 1, 8, 8), np.nan, np.float32), "y": labels()}, "nan"),
    "empty": ({"x": images(0), "y": labels(0)}, "no units"),
    "no-labels": ({"x": images()}, "no labels"),
    "labels-out-of-range": ({"x": images(), "y": labels() + 5}, "14"),
    "labels-negative": ({"x": images(), "y": labels() - 1}, "-1"),
    "labels-not-integer": ({"x": images(), "y": labels() / 2}, "float64"),
    "labels-too-few": ({"x": images(), "y": labels(99)}, "99"),
    "a-class-with-one-example": ({"x": images(), "y": np.arange(100) // 11}, "class 9"),
    "too-few-units": ({"x": images(9), "y": np.zeros(9, np.int64)}, "9 units"),
    "several-inputs": ({"x.left": images(), "x.right": images(), "y": labels()}, "x.left"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_data_set_is_refused(command: Command, release: Path, tmp_path: Path, name: str) -> None:
    arrays, part = BAD[name]
    np.savez(tmp_path / "set.npz", **arrays)
    words = ("--model", release / "model.onnx", "--data", tmp_path / "set.npz", "--out", tmp_path / "out")
    done = command("record", *words, "--json")
    assert done.code == 2, done.err
    assert done.json["error"]["type"] == "DataError"
    assert part in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_small_classes_can_be_withheld(command: Command, release: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=images(), y=np.arange(100) // 11)
    words = ("--model", release / "model.onnx", "--data", tmp_path / "set.npz", "--scale", "1/255")
    done = command("record", *words, "--suppress-small", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "suppression complementary" in command("show", tmp_path / "out").out


PLACES = {
    "missing": ("nowhere.npz", 2, "nothing there"),
    "no-such-split": ("digits:validation", 2, "split 'validation'"),
    "no-form": (__file__, 2, ".py"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_data_set_that_is_not_there(command: Command, release: Path, tmp_path: Path, name: str) -> None:
    place, exit_code, part = PLACES[name]
    done = command("evaluate", release / "model.onnx", "--data", place)
    assert done.code == exit_code
    assert part in done.err
    assert done.out == ""


def test_a_limit_beyond_the_set(command: Command, release: Path) -> None:
    done = command("evaluate", release / "model.onnx", "--data", "digits:test", "--limit", 999)
    assert done.code == 2
    assert "1 to 355" in done.err


def test_a_missing_extra(command: Command, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    done = command("evaluate", release / "model.onnx", "--data", "digits:test", "--json")
    assert done.code == 3
    assert done.json["error"]["type"] == "MissingExtra"
    assert "pip install 'dfmeta[digits]'" in done.err
