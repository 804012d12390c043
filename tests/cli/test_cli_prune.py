"""``dfmeta prune``: what it prints, what it writes, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfmeta.graph import Graph

Command = Callable[..., Any]


def test_half_of_the_channels(command: Command, calibrated: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.onnx"
    done = command("prune", calibrated, "--channels", "0.5", "--out", out, "--data", "digits:test", "--json")
    assert done.code == 0, done.err
    facts = done.json
    assert [(group["size"], group["kept"]) for group in facts["groups"]] == [(8, 4), (16, 8), (10, 10)]
    assert facts["written"]["evaluation"]["accuracy"] > 85
    assert facts["written"]["costs"]["macs"] < facts["written"]["teacher_costs"]["macs"]
    assert facts["config"]["ranking"] == "surgeon"
    assert Graph.from_file(out).outputs[0].shape[1:] == (10,)


def test_tables_for_people(command: Command, calibrated: Path, tmp_path: Path) -> None:
    done = command("prune", calibrated, "--channels", "0.75", "--sparsity", "2:4", "--out", tmp_path / "s.onnx")
    assert done.code == 0, done.err
    for text in ("teacher", "pruned", "channels of", "graph output", "why dense", "without their zeros", "source"):
        assert text in done.out


def test_a_share_of_the_work(command: Command, calibrated: Path, tmp_path: Path) -> None:
    done = command("prune", calibrated, "--macs", "0.6", "--groups", "all", "--out", tmp_path / "s.onnx", "--json")
    assert done.code == 0, done.err
    assert done.json["written"]["costs"]["macs"] <= 0.6 * done.json["written"]["teacher_costs"]["macs"]
    assert done.json["written"]["evaluation"] is None


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((), 2, "nothing to do"),
        (("--channels", "1.5"), 2, "above 0 and up to 1"),
        (("--channels", "0"), 2, "above 0 and up to 1"),
        (("--channels", "0.5", "--macs", "0.5"), 2, "both channels and macs"),
        (("--sparsity", "4:2"), 2, "such as 2:4"),
        (("--channels", "0.5", "--groups", "outer"), 2, "one of all, inner"),
        (("--channels", "half"), 2, "--channels"),
        (("--macs", "0.0001"), 1, "or more: one channel is left"),
    ],
)
def test_wrong_use(
    command: Command, calibrated: Path, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    out = tmp_path / "student.onnx"
    done = command("prune", calibrated, *words, "--out", out)
    assert (done.code, text in done.err) == (code, True), done.err
    assert not out.exists()


def test_missing_records_are_told_and_norms_must_be_asked_for(command: Command, release: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.onnx"
    done = command("prune", release, "--channels", "0.5", "--out", out, "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "StepError"
    assert "calibration" in done.json["error"]["fix"]
    assert command("prune", release, "--channels", "0.5", "--fallback", "norms", "--out", out).code == 0
    assert out.exists()


def test_no_output_is_overwritten(command: Command, calibrated: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.onnx"
    out.write_bytes(b"mine")
    assert command("prune", calibrated, "--channels", "0.5", "--out", out).code == 2
    assert out.read_bytes() == b"mine"
