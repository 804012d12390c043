"""``dfmeta compress --target`` at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfmeta.pipeline import _candidates
from dfmeta.pipeline.searching import Config

QUICK = ("--candidates", "2", "--steps", "2", "--method", "noise", "--count", "60")


@pytest.fixture(autouse=True)
def _small_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_candidates, "zoo_names", lambda: ("lenet5", "tiny8"))


@pytest.fixture(scope="module")
def calibrated(publisher: Path, command: Callable[..., Any]) -> Path:
    """A bundle with what a compressor reads."""
    out = publisher / "searchable"
    model = ("--model", "dfmeta_test_teacher:teacher", "--weights", publisher / "weights.safetensors")
    about = ("--name", "digits teacher", "--license", "MIT", "--preset", "calibration", "--scale", "1/255")
    found = command("record", *model, *about, "--data", "digits:train", "--out", out)
    assert found.code == 0, found.err
    return out


def test_a_table_of_candidates(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "student"
    given = ("--target", "c-codegen", "--ram", "3K", "--flash", "4400", "--data", "digits:test", "--limit", "50")
    found = command("compress", calibrated, *given, *QUICK, "--out", out)
    assert found.code == 0, found.err
    words = ("candidate", "scaled:", "prune:", "teacher", "as written", "at most 3,072 B", "at most 4,400 B", "noise")
    assert all(word in found.out for word in words), found.out
    assert "without lenet5" in found.out
    assert "float student" in found.out
    assert "note" not in found.out
    assert "ort-calibration" in found.out
    assert "warning" not in found.err
    checked = command("check", out / "student.onnx", "--target", "c-codegen", "--ram", "3K", "--flash", "4400")
    assert checked.code == 0, checked.out
    assert command("check", out / "student.onnx", "--target", "c-codegen", "--flash", "100").code == 1


def test_json_has_the_facts_of_the_report(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "student"
    found = command("compress", calibrated, "--target", "c-codegen", "--no-fpu", *QUICK, "--out", out, "--json")
    assert found.code == 0, found.err
    assert found.json["recipe"]["fpu"] is found.json["checked"]["fpu"] is False
    assert found.json == json.loads((out / "report.json").read_text())
    assert found.json["chosen"] == "teacher"
    assert [row["chosen"] for row in found.json["candidates"]].count(True) == 1


def test_a_budget_that_nothing_can_meet(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "student"
    found = command("compress", calibrated, "--target", "cortex-m", "--ram", "64", *QUICK, "--out", out, "--json")
    assert (found.code, out.exists()) == (1, False)
    error = json.loads(found.out)["error"]
    assert error["where"] == "target cortex-m"
    assert error["expected"] == "at most 64 bytes of RAM"
    assert "What binds is RAM: give --ram 320 or more" in error["fix"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target", "cortex"), "cortex-m"),
        (("--target", "cortex-m", "--board", "stm32l4r"), "stm32l4r5"),
        (("--target", "cortex-m", "--no-fpu"), "c-codegen"),
        (("--fpu", "--bits", "w8a8"), "--fpu without --target"),
        (("--no-fpu", "--ram", "2K"), "--ram, --no-fpu without --target"),
        (("--target", "cortex-m", "--recipe", "r.toml"), "a target and --recipe"),
        (("--target", "cortex-m", "--prune", "0.5", "--bits", "w8a8"), "a target and --prune, --bits"),
        (("--target", "cortex-m", "--equalize"), "a target and --equalize"),
        (("--target", "cortex-m", "--finetune", "5", "--factorize", "0.5"), "--factorize, --finetune"),
        (("--ram", "2K", "--bits", "w8a8"), "--ram without --target"),
        (("--flash", "2K", "--board", "stm32l4r5"), "--board, --flash without --target"),
        (("--candidates", "2", "--steps", "5"), "--candidates, --steps without --target"),
        (("--target", "cortex-m", "--ram", "much"), "'much' is no number of bytes"),
        (("--target", "cortex-m", "--flash", "0"), "'0' is no number of bytes"),
        (("--target", "cortex-m", "--flash", "-5"), "'-5' is no number of bytes"),
        (("--target", "cortex-m", "--candidates", "0"), "greater than or equal to 1"),
        (("--target", "cortex-m", "--steps", "x"), "a valid integer"),
        (("--target", "cortex-m", "--inputs", "x.npz", "--count", "5"), "inputs from a file, and --count"),
        (("--target", "cortex-m", "--data", "none.npz"), "none.npz"),
    ],
    ids=str,
)
def test_wrong_use(
    options: tuple[str, ...], said: str, calibrated: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "student"
    found = command("compress", calibrated, *options, "--out", out)
    assert (found.code, out.exists()) == (2, False), found.err
    assert said in " ".join(found.err.replace("│", " ").split())


def test_help_has_an_example_and_the_defaults(command: Callable[..., Any]) -> None:
    found = command("compress", "--help")
    words = " ".join(found.out.replace("│", " ").split())
    assert f"train this many at most ({Config().candidates})." in words
    assert f"training steps of the last round ({Config().steps})." in words
    assert "dfmeta compress release --target cortex-m --ram 32K --flash 64K --out student" in found.out
