"""Write the conformance vectors of format 1.0: ``spec/vectors/1.0``.

Each invalid case breaks the format in one place, and its ``expected.json`` says which clause, where, and with
what code. Run with ``--check`` to exit 1 where a file on disk differs from what this script would write.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import numpy as np
from vector_cases import INVALID, VALID, Change, Json, full, minimal, raw_cases, text_of

from dfmeta.bundle import Content, write_bundle
from dfmeta.schema import Manifest

ROOT = Path(__file__).resolve().parent.parent / "spec" / "vectors" / "1.0"


def vectors() -> dict[str, bytes]:
    """Every file of the vectors, by path below the folder of vectors."""
    files: dict[str, bytes] = {}

    def case(verdict: str, name: str, raw: bytes, expected: Json) -> None:
        files[f"{verdict}/{name}/dfmeta.json"] = raw
        files[f"{verdict}/{name}/expected.json"] = text_of({"verdict": verdict, **expected}).encode()

    case("valid", "minimal", text_of(minimal()).encode(), _accepted("4", True, False))
    for name, (change, clause, strict, warns) in VALID.items():
        case("valid", name, _changed(change), _accepted(clause, strict, warns))
    for name, (change, code, where, clause, seen) in INVALID.items():
        schema = "invalid" if seen else "valid"
        expected = {"code": code, "where": where, "clause": clause, "schema": schema}
        case("invalid", name, _changed(change), expected)
    for name, (raw, code, where) in raw_cases().items():
        # A JSON Schema sees what a JSON parser gives it: these are the parser's to refuse.
        case("invalid", name, raw, {"code": code, "where": where, "clause": "3.1", "schema": "unparsed"})
    return files | _bundle()


def _accepted(clause: str, strict: bool, warns: bool) -> Json:
    return {
        "clause": clause,
        "schema": "valid",
        "strict_schema": "valid" if strict else "invalid",
        "warns": warns,
    }


def _changed(change: Change) -> bytes:
    manifest = copy.deepcopy(full())
    change(manifest)
    return text_of(manifest).encode()


def _bundle() -> dict[str, bytes]:
    """One whole bundle, with a real graph and real numbers, as this release writes it."""
    manifest = full()
    del manifest["privacy"]["differential_privacy"]
    rows = np.array([[1.0, -2.0], [0.5, 4.0]])
    records = {
        "r0.count": np.array(40),
        "r0.mean": rows.mean(axis=0),
        "r0.var": rows.var(axis=0),
        "r1.count": np.array([40, 0]),
        "r1.mean": np.stack([rows.mean(axis=0), np.zeros(2)]),
        "r1.var": np.stack([rows.var(axis=0), np.zeros(2)]),
    }
    probe = {
        "input.0": rows.astype(np.float32),
        "output.0": np.maximum(rows, 0).astype(np.float32),
        "s0.mean": np.asarray(np.maximum(rows, 0).mean(), np.float32),
        "s0.l2": np.asarray(np.sqrt((np.maximum(rows, 0) ** 2).sum()), np.float32),
    }
    weights = len(EMPTY_HEADER).to_bytes(8, "little") + EMPTY_HEADER
    members: dict[str, Content] = {
        "model.onnx": GRAPH,
        "model.safetensors": weights,
        "dfmeta/records.safetensors": records,
        "dfmeta/probe.safetensors": probe,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        identity = write_bundle(path, Manifest.model_validate(manifest), members)
        files = {
            f"bundles/moments/bundle/{each.relative_to(path).as_posix()}": each.read_bytes()
            for each in path.rglob("*")
            if each.is_file()
        }
    files["bundles/moments/expected.json"] = text_of({"verdict": "valid", "identity": identity}).encode()
    return files


EMPTY_HEADER = b"{}      "
# ONNX, IR 8, operator set 18: one Relu from x to y, both float32 ["batch", 2].
GRAPH = bytes.fromhex(
    "08083a450a0c0a0178120179220452656c751201675a180a017812130a110801120d0a07120562617463680a0208026218"
    "0a017912130a110801120d0a07120562617463680a02080242040a001012"
)


def main() -> int:
    """Write the vectors, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the disk differs")
    check = parser.parse_args().check
    files = vectors()
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()}
    stale = [name for name, raw in files.items() if name not in there or (ROOT / name).read_bytes() != raw]
    extra = sorted(there - files.keys())
    if check:
        for name in [*stale, *extra]:
            print(f"{name}: differs from what tools/make_vectors.py writes", file=sys.stderr)
        return 1 if stale or extra else 0
    for name in stale:
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    for name in extra:
        (ROOT / name).unlink()
    print(f"{len(files)} files, {len(stale)} written, {len(extra)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
