"""Damage to a real bundle, anywhere: it is refused with one of our errors, or it reads as it was written."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dfmeta.bundle import Bundle
from dfmeta.bundle import validate as validate_files
from dfmeta.errors import DfmetaError
from dfmeta.graph import Graph

KEPT = Path(__file__).resolve().parents[2] / "tests" / "compat" / "0.1.0" / "every-kind"
FILES = sorted(path.relative_to(KEPT).as_posix() for path in KEPT.rglob("*") if path.is_file())


def everything(folder: Path) -> dict[str, bytes]:
    """All that a reader can get out of a bundle, as bytes by name."""
    bundle = Bundle.open(folder)
    found = {f"file {file.id}": bundle.member(file.id) for file in bundle.manifest.files}
    for record in bundle.manifest.records:
        found |= {f"{record.id}.{key}": flat(each) for key, each in bundle.record_tensors(record.id).items()}
    found |= {f"probe {key}": flat(each) for key, each in bundle.probe_tensors().items()}
    Graph.from_bytes(bundle.graph_bytes(), "graph")
    return {**found, "manifest": bundle.manifest.model_dump_json().encode()}


def flat(values: np.ndarray) -> bytes:
    return f"{values.dtype} {values.shape} ".encode() + values.tobytes()


WHOLE = everything(KEPT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Path(shutil.copytree(KEPT, tmp_path_factory.mktemp("flips") / "bundle"))


@st.composite
def damages(draw):
    """A file, and what becomes of its bytes: bits flipped, cut short, some put in, or two stretches swapped."""
    name = draw(st.sampled_from(FILES))
    raw = bytearray((KEPT / name).read_bytes())
    at = draw(st.integers(0, len(raw) - 1))
    sort = draw(st.sampled_from(["flip", "flips", "cut", "insert", "remove", "repeat"]))
    if sort.startswith("flip"):
        for place in [at, *draw(st.lists(st.integers(0, len(raw) - 1), max_size=8 if sort == "flips" else 0))]:
            raw[place] ^= 1 << draw(st.integers(0, 7))
    elif sort == "cut":
        del raw[at:]
    elif sort == "insert":
        raw[at:at] = draw(st.binary(min_size=1, max_size=20))
    elif sort == "remove":
        del raw[at : at + draw(st.integers(1, 20))]
    else:
        raw[at:at] = raw[at : at + draw(st.integers(1, 200))]
    # Two flips of one bit are none.
    assume(raw != (KEPT / name).read_bytes())
    return name, bytes(raw)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(damages())
def test_damage_is_refused_or_harmless(folder, damage):
    name, raw = damage
    (folder / name).write_bytes(raw)
    try:
        report = validate_files(folder)
        try:
            found = everything(folder)
        except DfmetaError:
            found = None
        # A member is pinned byte for byte; the manifest may be written in many ways, and say other things of itself.
        if name != "dfmeta.json":
            assert found is None
            assert not report.valid
        elif found is not None:
            # An id may be another, if nothing refers to it; what it leads to may not.
            assert {each for key, each in found.items() if key != "manifest"} <= set(WHOLE.values())
    finally:
        shutil.copyfile(KEPT / name, folder / name)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(damages())
def test_damage_that_is_pinned_anew_is_refused_or_read(folder, forge, damage):
    """Someone who controls the whole bundle also writes the digests: now the parsers themselves are asked."""
    name, raw = damage
    if name == "dfmeta.json":
        return
    try:
        forge(folder, name, raw)
        validate_files(folder)
        with contextlib.suppress(DfmetaError):
            everything(folder)
    finally:
        for each in (name, "dfmeta.json"):
            shutil.copyfile(KEPT / each, folder / each)
