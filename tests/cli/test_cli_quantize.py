"""``dfmeta quantize`` at the command line. The verb is registered by :mod:`dfmeta.cli.app`."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from dfmeta.cli.quantize import _FLAGS, quantize
from dfmeta.compress.quantize import Config


def test_a_table_of_layers(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    found = command("quantize", calibrated, "--bits", "w4a8", "--out", out, "--data", "digits:test")
    assert found.code == 0, found.err
    assert all(word in found.out for word in ("layer", "gptq", "accuracy", "stored", "packed", "small.onnx"))
    assert onnx.load(out).opset_import[0].version == 21


def test_the_same_facts_as_json(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    options = ("--bits", "w2", "--first-last-bits", "4", "--no-int4", "--set", "damping=0.05", "--json")
    found = command("quantize", calibrated, *options, "--out", out)
    assert found.code == 0, found.err
    assert found.json["written"]["path"] == str(out)
    assert [layer["bits"] for layer in found.json["layers"]] == [4, 2, 4]
    assert {layer["damping"] for layer in found.json["layers"]} == {0.05}
    assert "INT8" in found.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--bits", "w9"), 2, "w2 to w8"),
        (("--bits", "w4", "--budget-bytes", "1"), 1, "at least"),
        (("--rounding", "best"), 2, "gptq"),
        (("--ranges", "max"), 2, "minmax"),
        (("--form", "onnx"), 2, "qdq"),
        (("--form", "qoperator", "--bits", "w4"), 1, "8 bits"),
        (("--set", "damp=1"), 2, "damping"),
        (("--set", "damping=-1"), 2, "0 or more"),
        (("--bits", "w4", "--ranges", "foo"), 2, "ranges: found 'foo', expected one of entropy, minmax"),
        (("--bits", "w4", "--set", "percentile=40"), 2, "percentile: found 40, expected a number above 50"),
        (("--bits", "w4a4", "--ranges", "percentile", "--set", "percentile=40"), 2, "percentile: found 40"),
        (("--first-last-bits", "1"), 2, "2 to 8, or 0"),
    ],
    ids=str,
)
def test_wrong_use(
    options: tuple[str, ...], code: int, said: str, calibrated: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "small.onnx"
    found = command("quantize", calibrated, *options, "--out", out)
    assert (found.code, out.exists()) == (code, False)
    assert said in found.err


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ("bits=w4", "--bits"),
        ("rounding=nearest", "--rounding"),
        ("ranges=minmax", "--ranges"),
        ("first_last_bits=0", "--first-last-bits"),
        ("budget_bytes=9000", "--budget-bytes"),
        ("int4=false", "--no-int4"),
        ("fallback=nearest", "--fallback"),
    ],
)
def test_a_setting_with_a_flag_of_its_own_is_refused(
    setting: str, flag: str, calibrated: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    found = command("quantize", calibrated, "--set", setting, "--out", tmp_path / "small.onnx")
    assert (found.code, list(tmp_path.iterdir())) == (2, [])
    assert f"{setting.partition('=')[0]!r} has a flag of its own: {flag}." in found.err


def test_every_flag_of_a_setting_is_known_to_be_one() -> None:
    """Settings that are parameters of the verb under their own name; --no-int4 says the opposite of its setting."""
    named = inspect.signature(quantize).parameters.keys() & {entry.name for entry in dataclasses.fields(Config)}
    assert _FLAGS.keys() == named | {"int4"}


def test_a_budget_alone_mixes_bits(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    found = command("quantize", calibrated, "--budget-bytes", "1900", "--first-last-bits", "0", "--out", out, "--json")
    assert found.code == 0, found.err
    assert found.json["weight_bytes"] <= 1900
    assert {layer["bits"] for layer in found.json["layers"]} == {4, 8}
    notes = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(notes["dfmeta.recipe"])["quantize"]["bits"] == "w4a8"


def test_equalizing_first_is_told(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    words = ("quantize", calibrated, "--bits", "w4a8", "--equalize", "--out")
    found = command(*words, tmp_path / "a.onnx", "--json")
    assert found.code == 0, found.err
    assert [pair["channels"] for pair in found.json["pairs"]] == [8, 16]
    assert "ranges of scaled values from second moments" in found.err
    table = command(*words, tmp_path / "b.onnx")
    assert "2 pairs of layers" in table.out
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_missing_records_are_named(release: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    found = command("quantize", release, "--bits", "w4", "--out", tmp_path / "small.onnx")
    assert found.code == 1
    assert "second moments: found none for" in found.err
    found = command("quantize", release, "--bits", "w4", "--fallback", "nearest", "--out", tmp_path / "small.onnx")
    assert found.code == 0, found.err
    assert "nearest, without records" in found.err


def test_an_output_that_exists_is_left_alone(calibrated: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    out.write_bytes(b"mine")
    assert command("quantize", calibrated, "--out", out).code == 2
    assert out.read_bytes() == b"mine"
