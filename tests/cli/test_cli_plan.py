"""What a recording will take, said beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def model(repository: Path) -> str:
    return str(repository / "examples" / "digits-cnn.onnx")


def test_a_plan_needs_no_data_and_writes_nothing(
    command: Command, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("record", "--model", model, "--preset", "top-layer", "--plan", "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert facts["exact"]
    assert facts["record_bytes"] > sum(record["bytes"] for record in facts["records"]) > 0
    assert list(tmp_path.iterdir()) == []
    wrote = command(
        *("record", "--model", model, "--data", "digits:train", "--scale", "1/255"),
        *("--preset", "top-layer", "--out", "release", "--json"),
    )
    assert json.loads(wrote.out)["record_bytes"] == facts["record_bytes"]


def test_a_plan_for_people(command: Command, model: str) -> None:
    done = command("record", "--model", model, "--preset", "calibration", "--budget-bytes", "40kB", "--plan")
    assert done.code == 0
    assert "memory while gathering" in done.out
    assert "40.0 kB" in done.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--preset", "calibration", "--budget-bytes", "1kB", "--plan"], "expected at least"),
        (["--budget-bytes", "much", "--plan"], "number of bytes"),
        (["--data", "digits:train"], "--out"),
        (["--out", "release"], "--data"),
        (["--form", "circular", "--plan"], "form"),
    ],
)
def test_plans_that_cannot_be(command: Command, model: str, words: list[str], text: str) -> None:
    done = command("record", "--model", model, *words)
    assert done.code == 2
    assert text in done.err
    assert done.out == ""


def test_noise_from_the_command_line(command: Command, model: str, tmp_path: Path) -> None:
    words = ["record", "--model", model, "--data", "digits:train", "--scale", "1/255", "--preset", "all-layers"]
    done = command(*words, "--dp-rho", "0.5", "--dp-clip", "1.5", "--out", str(tmp_path / "release"), "--json")
    assert done.code == 0
    assert json.loads(done.out)["privacy"]["rho"] == 0.5
    ledger = json.loads((tmp_path / "release" / "dfmeta.json").read_text())["privacy"]["differential_privacy"]
    assert ledger["rho"] == 0.5
    for wrong, text in (
        (["--dp-rho", "0.5"], "no clipping norm"),
        (["--dp-clip", "1"], "--dp-rho"),
        (["--dp-rho", "0.5", "--dp-clip", "large"], "--dp-clip"),
        (["--dp-rho", "0.5", "--dp-clip", "1.5", "--limit", "500"], "--limit 500"),
    ):
        refused = command(*words, *wrong, "--out", str(tmp_path / "other"))
        assert refused.code == 2
        assert text in refused.err
        assert not (tmp_path / "other").exists()
