"""``dfmeta convert`` at the command line. The verb is registered by :mod:`dfmeta.cli.app`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_ranges_for_onnxruntime(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "ranges.json"
    found = command("convert", calibrated, "--to", "ort-calibration", "--ranges", "minmax", "--out", out)
    assert found.code == 0, found.err
    assert all(word in found.out for word in ("ort-calibration", "values", "ranges.json"))
    assert "quantize_static" in found.err
    assert json.loads(out.read_text())["CLS"] == "TensorsData"


def test_encodings_as_json(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "a.encodings"
    options = ("--bits", "w4a8", "--set", "first_last_bits=0", "--json")
    found = command("convert", calibrated, "--to", "aimet-encodings", *options, "--out", out)
    assert found.code == 0, found.err
    assert found.json["weights"] == 3
    assert {entry["bw"] for entry in json.loads(out.read_text())["param_encodings"]} == {4}


def test_an_importance_matrix_there_and_back(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "i.gguf"
    found = command("convert", calibrated, "--to", "imatrix", "--out", out)
    assert found.code == 0, found.err
    assert "left out" in found.err
    about = ("--name", "teacher", "--license", "MIT", "--dataset-name", "digits")
    model = ("--model", calibrated / "model.onnx")
    found = command("convert", out, "--from", "imatrix", *model, *about, "--out", tmp_path / "b", "--json")
    assert found.code == 0, found.err
    assert (found.json["form"], len(found.json["used"]), len(found.json["uncovered"])) == ("diagonal", 1, 2)
    assert "without a record" in found.err
    shown = command("convert", out, "--from", "imatrix", *model, "--out", tmp_path / "c")
    assert "operators" in shown.out
    assert command("validate", tmp_path / "b").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "one of --to and --from"),
        (("--to", "imatrix", "--from", "imatrix"), 2, "one of --to and --from"),
        (("--to", "tensorrt"), 2, "ort-calibration"),
        (("--from", "npz", "--model", "MODEL"), 2, "flat-hessian"),
        (("--from", "imatrix"), 2, "--model"),
        (("--to", "imatrix", "--model", "MODEL"), 2, "goes with --from only"),
        (("--to", "imatrix", "--license", "MIT"), 2, "goes with --from only"),
        (("--from", "imatrix", "--model", "MODEL", "--bits", "w4"), 2, "goes with --to only"),
        (("--to", "imatrix", "--set", "bits=w4"), 2, "'bits' has a flag of its own: --bits"),
        (("--to", "imatrix", "--ranges", "foo"), 2, "expected one of entropy, minmax"),
        (("--to", "imatrix", "--set", "percentile=40"), 2, "percentile: found 40, expected a number above 50"),
        (("--to", "imatrix", "--set", "ranges=mse"), 2, "'ranges' has a flag of its own: --ranges"),
        (("--to", "aimet-encodings"), 2, "does not end in .encodings or .json"),
        (("--to", "imatrix", "--names", "ollama"), 2, "llama.cpp"),
        (("--to", "imatrix", "--set", "damp=1"), 2, "damping"),
        (("--from", "imatrix", "--model", "MODEL", "--min-units", "0"), 2, "min-units"),
        (("--from", "imatrix", "--model", "MODEL"), 2, "not a regular file"),
    ],
    ids=str,
)
def test_wrong_use(
    options: tuple[str, ...], code: int, said: str, calibrated: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    given = [calibrated / "model.onnx" if option == "MODEL" else option for option in options]
    out = tmp_path / "out.gguf"
    found = command("convert", calibrated, *given, "--out", out)
    assert (found.code, out.exists()) == (code, False), found.err
    assert said in found.err


def test_an_output_that_exists_is_left_alone(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "i.gguf"
    out.write_bytes(b"mine")
    assert command("convert", calibrated, "--to", "imatrix", "--out", out).code == 2
    assert command("convert", calibrated, calibrated, "--to", "imatrix", "--out", tmp_path / "j.gguf").code == 2
    assert out.read_bytes() == b"mine"
