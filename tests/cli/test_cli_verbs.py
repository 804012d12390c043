"""Every verb on real data, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

Command = Callable[..., Any]
FEW = ("--set", "iterations=20", "--set", "batch=100")


def test_record_says_what_it_wrote(recorded: Any, release: Path) -> None:
    facts = recorded.json
    assert (facts["sites"], facts["records"], facts["units"]) == (4, 16, 1442)
    assert facts["record_bytes"] == (release / "dfmeta" / "records.safetensors").stat().st_size
    assert facts["preprocessing"] == [{"op": "rescale", "scale": 1 / 255, "offset": 0.0}]
    assert recorded.out.count("identity") == 1
    assert "record: 1442 of 1442" in recorded.err


def test_what_a_publishers_module_prints_stays_off_stdout(recorded: Any) -> None:
    assert "a publisher's module may print" in recorded.err


def test_record_publishes_what_it_was_told_and_no_file_name(release: Path) -> None:
    manifest = json.loads((release / "dfmeta.json").read_text())
    assert manifest["model"]["name"] == "digits teacher"
    assert manifest["licenses"] == {"model": "MIT", "records": "MIT"}
    assert manifest["datasets"][0]["name"] == "digits of a test"


def test_record_from_a_file_for_people(command: Command, release: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "secret-patients.npz"
    np.savez(unlabelled, x=np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8))
    model = ("--model", release / "model.onnx", "--data", unlabelled, "--limit", 30, "--scale", "1/255")
    done = command("record", *model, "--preset", "top-layer", "--no-classes", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "units          30\n" in done.out
    assert "preprocessing  times 0.00392157\n" in done.out
    assert "secret" not in (tmp_path / "out" / "dfmeta.json").read_text()


def test_validate(command: Command, release: Path) -> None:
    done = command("validate", release, "--strict", "--json")
    assert done.code == 0
    assert done.json["valid"] is True
    assert done.json["errors"] == []
    assert "problems" not in done.json
    assert (done.json["files"], done.json["records"], done.json["strict"]) == (3, 16, True)
    assert "verdict   valid\n" in command("validate", release).out


def test_show_for_programs(command: Command, release: Path, recorded: Any) -> None:
    facts = command("show", release, "--json").json
    assert facts["identity"] == recorded.json["identity"]
    assert facts["sites"][0]["shape"] == ["batch", 1, 8, 8]
    sidecar = load_file(release / "dfmeta" / "records.safetensors")
    assert sum(record["values"] for record in facts["records"]) == sum(each.size for each in sidecar.values())


def test_show_for_people(command: Command, release: Path) -> None:
    shown = command("show", release).out
    for part in ("digits teacher", "1,946", "input, float32 [batch, 1, 8, 8]", "moments (all, class)", "MIT"):
        assert part in shown
    assert "at least 10 units (image) in each group" in shown


def test_show_prints_no_control_codes_of_a_manifest(command: Command, spoiled: Path) -> None:
    path = spoiled / "dfmeta.json"
    path.write_text(path.read_text().replace("digits teacher", "\\u001b[2J[bold]\\u202ereversed"))
    shown = command("show", spoiled)
    assert shown.code == 0, shown.err
    assert "\x1b" not in shown.out
    assert "\\x1b[2J[bold]\\u202ereversed" in shown.out


def test_reconstruct_writes_a_data_set(command: Command, release: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.safetensors"
    words = ("reconstruct", release, *FEW, "--count", 40, "--seed", 3, "--out", out, "--json")
    done = command(*words)
    assert done.code == 0, done.err
    assert done.json["settings"] == {"iterations": "20", "batch": "100"}
    assert done.json["bytes"] == out.stat().st_size
    made = load_file(out)
    assert made["x"].shape == (40, 1, 8, 8)
    assert made["y"].shape == (40,)
    # Preprocessing allows 0..1, and no more.
    assert made["x"].min() >= 0
    assert made["x"].max() <= 1
    # What it writes, the other verbs take.
    student = tmp_path / "kept.onnx"
    learn = ("--student", "tiny8", "--steps", 5, "--batch", 16, "--data", out, "--out", student)
    assert command("distill", release, *learn).code == 0
    assert command("evaluate", student, "--data", out, "--bundle", release).code == 0


def test_distill_says_what_it_made(distilled: Any, student: Path, recorded: Any) -> None:
    facts = distilled.json
    assert facts["costs"]["bytes"] == student.stat().st_size
    assert facts["costs"]["parameters"] == 1898
    assert facts["source"] == recorded.json["identity"]
    assert "synthesise: 30 of 30, loss" in distilled.err
    assert "distill: 60 of 60, loss" in distilled.err
    assert onnx.load(student).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_distill_the_consumers_own_student(
    command: Command, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from torch import nn\n\n\ndef small(shape, classes):\n    return nn.Sequential(nn.Flatten(), "
    (tmp_path / "dfmeta_test_student.py").write_text(f"{code}nn.Linear(64, classes))\n")
    monkeypatch.chdir(tmp_path)
    own = ("--student", "dfmeta_test_student:small", "--method", "noise", "--steps", 5, "--dynamic-batch")
    done = command("distill", release, *own, "--out", "own.onnx")
    assert done.code == 0, done.err
    assert "teacher" in done.out
    assert "650" in done.out
    assert "on 1,000 inputs from the same source, not on real data" in done.out


def test_evaluate_with_a_bundle(command: Command, release: Path, student: Path) -> None:
    done = command("evaluate", student, "--data", "digits:test", "--bundle", release, "--json")
    assert done.code == 0, done.err
    facts = done.json
    assert facts["count"] == 355
    assert facts["teacher_accuracy"] > 95
    assert 0 <= facts["agreement"] <= 100
    assert (facts["parameters"], facts["bytes"]) == (1898, student.stat().st_size)
    assert facts["teacher_costs"]["parameters"] == 1946


def test_evaluate_alone_with_flags(command: Command, release: Path) -> None:
    words = ("evaluate", release / "model.onnx", "--data", "digits:test", "--limit", 100, "--seed", 5)
    scaled, raw = command(*words, "--scale", "1/255"), command(*words)
    assert "digits:test: 100 units, drawn with seed 5" in scaled.out
    assert "times 0.00392157" in scaled.out
    assert "stored values 0 to 255" in raw.out
    assert "agreement" not in raw.out


def test_the_bundles_preprocessing_is_what_the_flags_said(command: Command, release: Path) -> None:
    words = ("evaluate", release / "model.onnx", "--data", "digits:test", "--json")
    by_bundle, by_flags = command(*words, "--bundle", release), command(*words, "--scale", "1/255")
    assert by_bundle.json["accuracy"] == by_flags.json["accuracy"]
    assert by_bundle.json["agreement"] == 100
