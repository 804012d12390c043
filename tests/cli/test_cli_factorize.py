"""``dfmeta factorize`` at the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfmeta.graph import Graph

Command = Callable[..., Any]


def test_json_and_table_say_the_same(command: Command, calibrated: Path, tmp_path: Path) -> None:
    words = ("factorize", calibrated, "--params", "0.8", "--data", "digits:test", "--limit", "200")
    done = command(*words, "--out", tmp_path / "a.onnx", "--json")
    assert done.code == 0, done.err
    facts = done.json
    assert facts["config"]["params"] == 0.8
    assert facts["config"]["macs"] is None
    assert facts["parameters"] <= 0.8 * facts["parameters_before"]
    assert facts["written"]["evaluation"]["count"] == 200
    assert [one["label"] for one in facts["operators"]]
    assert Graph.from_file(tmp_path / "a.onnx").raw
    table = command(*words, "--out", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    for one in facts["operators"]:
        assert one["label"] in table.out
        assert one["form"] in table.out
        assert f" {one['damping']:g} " in next(line for line in table.out.splitlines() if line.startswith(one["label"]))
    assert {one["record"]: one["damping"] for one in facts["operators"]} == {"toeplitz": 0.1, "full": 0.01}
    assert "factorized" in table.out
    assert f"{facts['parameters']:,} of {facts['parameters_before']:,} elements" in table.out


def test_macs_forms_and_operators_that_are_kept(command: Command, calibrated: Path, tmp_path: Path) -> None:
    first = command("factorize", calibrated, "--out", tmp_path / "a.onnx", "--json").json["operators"][0]["label"]
    words = ("--macs", "0.7", "--forms", "svd,tucker", "--keep", first, "--least-rank", "2", "--no-affine")
    done = command("factorize", calibrated, *words, "--out", tmp_path / "b.onnx", "--json")
    assert done.code == 0, done.err
    told = {one["label"]: one for one in done.json["operators"]}
    assert told[first]["form"] == "whole"
    assert told[first]["reason"] == "kept, as asked"
    assert {one["form"] for one in told.values()} <= {"whole", "svd", "tucker"}
    assert sum(one["macs"] for one in told.values()) <= 0.7 * sum(one["macs_before"] for one in told.values())
    assert done.json["config"]["params"] is None


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--params", "1.5"), 2, "params: found 1.5, expected a share above 0 and below 1"),
        (("--params", "0.75", "--macs", "0.5"), 2, "found 2 budgets, expected either params or macs"),
        (("--params", "0.001"), 1, "which the smallest ranks come to"),
        (("--forms", "svd,tuckr"), 2, "Did you mean 'tucker'"),
        (("--keep", "nothing"), 2, "operator: found 'nothing', expected one of"),
        (("--fallback", "nearest"), 2, "expected one of none, plain"),
        (("--least-rank", "0"), 2, "--least-rank"),
    ],
)
def test_wrong_use(
    command: Command, calibrated: Path, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    done = command("factorize", calibrated, *words, "--out", tmp_path / "a.onnx")
    assert (done.code, done.out) == (code, "")
    assert text in done.err
    assert not list(tmp_path.iterdir())


def test_a_release_without_second_moments(command: Command, release: Path, tmp_path: Path) -> None:
    done = command("factorize", release, "--out", tmp_path / "a.onnx")
    assert done.code == 1
    assert "no second moment of the input of" in done.err
    assert command("factorize", release, "--fallback", "plain", "--out", tmp_path / "a.onnx").code == 0
