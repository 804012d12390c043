"""One small real bundle, and ways to spoil it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfmeta.bundle import Bundle
from dfmeta.schema import Manifest

KEPT = Path(__file__).resolve().parents[2] / "tests" / "compat" / "0.1.0" / "moments"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A writable copy of a bundle that is kept for ever."""
    return Path(shutil.copytree(KEPT, tmp_path / "bundle"))


@pytest.fixture
def parts() -> tuple[Manifest, dict[str, Any]]:
    """The same bundle as what one gives to ``write_bundle``."""
    opened = Bundle.open(KEPT)
    records = {
        tensor.name: opened.tensor(record.id, statistic)
        for record in opened.manifest.records
        for statistic, tensor in record.tensors.items()
    }
    members: dict[str, Any] = {file.path: opened.member(file.id) for file in opened.manifest.files}
    members["dfmeta/records.safetensors"] = records
    members["dfmeta/probe.safetensors"] = opened.probe_tensors()
    return opened.manifest, members


@pytest.fixture
def edit() -> Callable[[Path, Callable[[dict[str, Any]], None]], None]:
    """Change a bundle's manifest in place."""

    def apply(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads((bundle / "dfmeta.json").read_bytes())
        change(document)
        (bundle / "dfmeta.json").write_text(json.dumps(document), encoding="utf-8")

    return apply


@pytest.fixture
def forge(edit) -> Callable[..., None]:
    """Replace a member and re-pin everything, as someone would who controls the whole bundle."""

    def apply(bundle: Path, path: str, raw: bytes) -> None:
        (bundle / path).write_bytes(raw)
        length = int.from_bytes(raw[:8], "little")

        def repin(document: dict[str, Any]) -> None:
            (file,) = (file for file in document["files"] if file["path"] == path)
            file |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            if "header_sha256" in file:
                file["header_sha256"] = hashlib.sha256(raw[: 8 + length]).hexdigest()

        edit(bundle, repin)

    return apply


@pytest.fixture
def container() -> Callable[..., bytes]:
    """Container bytes from any header, however wrong."""

    def build(header: object, data: bytes = b"") -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data

    return build


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """One array of each dtype that a sidecar may hold, of ranks 0 to 3, one of them empty."""
    return {
        "a.f64": np.array(1.5),
        "a.f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.f16": np.ones((1, 2, 2), dtype=np.float16),
        "b.i64": np.array([-1, 2**53]),
        "b.i8": np.array([-128, 127], dtype=np.int8),
        "b.u8": np.zeros((3, 0), dtype=np.uint8),
    }
