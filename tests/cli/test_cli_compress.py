"""``dfmeta compress`` at the command line. The verb is registered by :mod:`dfmeta.cli.app`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest


def test_flags_and_a_table_of_steps(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "student"
    steps = ("--prune", "0.5", "--finetune", "3", "--bits", "w4a8")
    made = ("--method", "noise", "--count", "60")
    found = command("compress", calibrated, *steps, *made, "--out", out, "--data", "digits:test", "--limit", "100")
    assert found.code == 0, found.err
    words = ("teacher", "1 prune", "2 finetune", "3 quantize", "agreement", "60, noise", "anew", "student.onnx")
    assert all(word in found.out for word in words)
    assert (out / "report.json").is_file()
    assert onnx.load(out / "student.onnx").opset_import[0].version == 21


def test_what_quantize_would_say_is_said(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\nname = "quantize"\nbits = "w3"\nint4 = false\n')
    found = command("compress", calibrated, "--recipe", recipe, "--out", tmp_path / "student", "--json")
    assert found.code == 0, found.err
    notes = found.json["steps"][0]["notes"]
    assert len(notes) == 2
    assert all(f"warning: 1 quantize: {note}" in " ".join(found.err.split()) for note in notes)
    assert "stored in INT8, at twice the bytes of INT4" in notes[0]


def test_a_recipe_and_json(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\nname = "equalize"\n\n[[step]]\nname = "quantize"\nbits = "w4"\n')
    found = command("compress", calibrated, "--recipe", recipe, "--out", tmp_path / "student", "--json")
    assert found.code == 0, found.err
    assert [step["name"] for step in found.json["steps"]] == ["equalize", "quantize"]
    assert found.json["model"] == str(tmp_path / "student" / "student.onnx")
    assert found.json["steps"][1]["sites"][1]["transformed"] == ["scaled"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "no step"),
        (("--recipe", "recipe.toml", "--bits", "w4"), 2, "--bits"),
        (("--recipe", "none.toml"), 2, "no readable file"),
        (("--prune", "2"), 2, "above 0 and up to 1"),
        (("--factorize", "1"), 2, "below 1"),
        (("--bits", "w9"), 2, "w2 to w8"),
        (("--finetune", "0", "--bits", "w4"), 2, "1 or more"),
        (("--bits", "w2", "--finetune", "1", "--method", "nois"), 2, "noise"),
        (("--bits", "w4", "--inputs", "x.npz", "--count", "5"), 2, "inputs from a file, and --count to make them"),
        (("--bits", "w4", "--inputs", "x.npz", "--set", "a=1"), 2, "inputs from a file, and --set to make them"),
    ],
    ids=str,
)
def test_wrong_use(
    options: tuple[str, ...], code: int, said: str, calibrated: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "student"
    found = command("compress", calibrated, *options, "--out", out)
    assert (found.code, out.exists()) == (code, False)
    assert said in found.err


def test_settings_are_added_to_those_of_the_file(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    inputs = '[inputs]\nmethod = "zskd"\nsettings = { iterations = 40, lr = 0.02 }\n'
    recipe.write_text(inputs + '[[step]]\nname = "quantize"\nbits = "w4"\n')
    given = ("--recipe", recipe, "--set", "iterations=3", "--set", "batch=8")
    found = command("compress", calibrated, *given, "--out", tmp_path / "student", "--json")
    assert found.code == 0, found.err
    assert found.json["recipe"]["inputs"]["settings"] == {"iterations": "3", "lr": "0.02", "batch": "8"}
