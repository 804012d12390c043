"""Bad bundles: each says what is wrong, in one message, with the right exit code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
Damage = Callable[[Path], None]
RECORDS = "dfmeta/records.safetensors"
PROBE = "dfmeta/probe.safetensors"


def document(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the manifest's members."""

    def damage(folder: Path) -> None:
        path = folder / "dfmeta.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return damage


def text(old: str, new: str) -> Damage:
    """Change the manifest's text."""

    def damage(folder: Path) -> None:
        path = folder / "dfmeta.json"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    return damage


def member(path: str, change: Callable[[bytes], bytes]) -> Damage:
    """Change a member's bytes and leave the manifest as it is."""

    def damage(folder: Path) -> None:
        (folder / path).write_bytes(change((folder / path).read_bytes()))

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the sidecar's header, and pin what it became."""

    def damage(folder: Path) -> None:
        raw = (folder / RECORDS).read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        entries = json.loads(raw[8 : 8 + length])
        change(entries)
        line = json.dumps(entries, separators=(",", ":")).encode()
        line += b" " * (-len(line) % 8)
        head = struct.pack("<Q", len(line)) + line
        new = head + raw[8 + length :]
        (folder / RECORDS).write_bytes(new)

        def pin(manifest: dict[str, Any]) -> None:
            file = next(file for file in manifest["files"] if file["path"] == RECORDS)
            file["size"] = len(new)
            file["sha256"] = hashlib.sha256(new).hexdigest()
            file["header_sha256"] = hashlib.sha256(head).hexdigest()

        document(pin)(folder)

    return damage


def flip(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def swap(folder: Path) -> None:
    os.rename(folder / RECORDS, folder / "other")
    os.rename(folder / PROBE, folder / RECORDS)
    os.rename(folder / "other", folder / PROBE)


def link_out(folder: Path) -> None:
    outside = shutil.copy(folder / "model.onnx", folder.parent / "outside.onnx")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(outside)


def overlap(entries: dict[str, Any]) -> None:
    names = sorted(name for name in entries if name != "__metadata__")
    same = [name for name in names if entries[name]["shape"] == entries[names[1]]["shape"]]
    entries[same[1]]["data_offsets"] = entries[same[0]]["data_offsets"]


def rename(entries: dict[str, Any]) -> None:
    entries["r0000.misnamed"] = entries.pop("r0000.mean")


DAMAGES: dict[str, tuple[Damage, str, int, str, str]] = {
    # name: (damage, problem's code, exit code of a verb that uses the bundle, its error, part of its text)
    "truncated": (
        *(member(RECORDS, lambda raw: raw[:-7]), "wrong-size"),
        *(1, "IntegrityError", "bytes"),
    ),
    "bit-flipped": (member("model.onnx", flip), "wrong-sha256", 1, "IntegrityError", "model.onnx"),
    "bit-flipped-sidecar": (member(RECORDS, flip), "wrong-sha256", 1, "IntegrityError", "r00"),
    "swapped": (swap, "wrong-size", 1, "IntegrityError", "safetensors"),
    "missing-member": (
        *(lambda folder: (folder / "model.onnx").unlink(), "missing-file"),
        *(1, "BundleError", "no such file"),
    ),
    "no-manifest": (
        *(lambda folder: (folder / "dfmeta.json").unlink(), "missing-file"),
        *(1, "BundleError", "dfmeta.json"),
    ),
    "empty-manifest": (
        *(lambda folder: (folder / "dfmeta.json").write_bytes(b""), ""),
        *(1, "SchemaError", "1 problem"),
    ),
    "unknown-major": (
        *(text('"format_version": "1.0"', '"format_version": "2.0"'), "unsupported-version"),
        *(3, "UnsupportedVersion", "2.0"),
    ),
    "unknown-feature": (
        *(document(lambda m: m.update(required_features=["time-travel"])), "unsupported-feature"),
        *(3, "UnsupportedVersion", "time-travel"),
    ),
    "duplicate-keys": (
        *(text('"format": "dfmeta",', '"format": "dfmeta", "format": "dfmeta",'), "duplicate-key"),
        *(1, "SchemaError", "format"),
    ),
    "nan": (
        *(text('"position_count": 1442', '"position_count": NaN'), "not-a-number"),
        *(1, "SchemaError", "NaN"),
    ),
    "nested": (
        *(text('"format": "dfmeta"', f'"format": "dfmeta", "extra": {"[" * 33}{"]" * 33}'), "too-deep"),
        *(1, "SchemaError", "32"),
    ),
    "parent-path": (
        *(document(lambda m: m["files"][0].update(path="../outside.onnx")), "unsafe-path"),
        *(1, "SchemaError", "files[0].path"),
    ),
    "absolute-path": (
        *(document(lambda m: m["files"][0].update(path="/etc/passwd")), "unsafe-path"),
        *(1, "SchemaError", "files[0].path"),
    ),
    "symlink": (link_out, "", 1, "BundleError", "model.onnx"),
    "overlapping-tensors": (header(overlap), "", 1, "SchemaError", "records.safetensors"),
    "missing-tensor": (header(rename), "missing-tensor", 1, "SchemaError", "r0000.mean"),
    "hole-before-tensors": (
        *(header(lambda entries: entries.pop("r0000.mean")), ""),
        *(1, "SchemaError", "records.safetensors"),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_bundle_is_refused(command: Command, spoiled: Path, tmp_path: Path, name: str) -> None:
    damage, code, exit_code, kind, part = DAMAGES[name]
    damage(spoiled)
    checked = command("validate", spoiled, "--json")
    assert checked.code == exit_code
    assert checked.json["valid"] is False
    codes = [problem["code"] for problem in checked.json["errors"]]
    assert code in codes if code else codes, checked.json["errors"]
    out = tmp_path / "made.safetensors"
    words = ("reconstruct", spoiled, "--method", "noise", "--count", 1, "--out", out)
    for_people, for_programs = command(*words), command(*words, "--json")
    assert for_people.code == for_programs.code == exit_code, for_people.err
    assert for_programs.json["error"]["type"] == kind
    assert for_programs.json["error"]["exit_code"] == exit_code
    assert part in for_people.err
    assert for_people.err.startswith("error: ")
    assert for_people.out == ""
    assert "Traceback" not in for_people.err
    assert not out.exists()


def test_validate_tells_people_every_problem(command: Command, spoiled: Path) -> None:
    member("model.onnx", flip)(spoiled)
    (spoiled / PROBE).unlink()
    done = command("validate", spoiled)
    assert done.code == 1
    assert "not valid: 2 problems" in done.out
    assert done.out.count("\nproblem ") == 2


def test_validate_runs_the_probe(command: Command, spoiled: Path) -> None:
    """A graph of other weights, correctly pinned: only its numbers give it away."""
    raw = bytearray((spoiled / "model.onnx").read_bytes())
    import onnx
    from onnx import numpy_helper

    model = onnx.ModelProto.FromString(bytes(raw))
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    new = model.SerializeToString()
    (spoiled / "model.onnx").write_bytes(new)
    pins = {"size": len(new), "sha256": hashlib.sha256(new).hexdigest()}
    document(lambda m: m["files"][0].update(pins))(spoiled)
    done = command("validate", spoiled, "--json")
    assert done.code == 1
    assert done.json["errors"]


def test_warnings_go_to_stderr(command: Command, spoiled: Path) -> None:
    document(lambda m: m.update(format_version="1.7"))(spoiled)
    for verb in ("show", "validate"):
        done = command(verb, spoiled, "--json")
        assert done.code == 0
        assert done.json["warnings"]
        assert done.err.startswith("warning: ")


def test_strict_refuses_what_readers_pass_over(command: Command, spoiled: Path) -> None:
    document(lambda m: m.update(recods=[]))(spoiled)
    assert command("validate", spoiled).code == 0
    strict = command("validate", spoiled, "--strict")
    assert strict.code == 1
    assert "records" in strict.out


def test_a_bundle_that_is_no_folder(command: Command, release: Path, tmp_path: Path) -> None:
    for path in (release / "dfmeta.json", tmp_path / "nowhere"):
        assert command("validate", path).code == 1
        done = command("show", path, "--json")
        assert done.code == 1
        assert done.json["error"]["type"] == "BundleError"
        assert str(path) in done.err
