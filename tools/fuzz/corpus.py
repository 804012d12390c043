"""Where fuzzing begins: every conformance vector and every bundle that is kept for ever, as each target takes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import container_mutator
import folder_mutator
import json_mutator
import onnx_mutator
import packing
from json_mutator import Bytes, Vocabulary

ROOT = Path(__file__).resolve().parents[2]
_VECTORS = ROOT / "spec" / "vectors" / "1.0"
_KEPT = ROOT / "tests" / "compat"

Mutator = Callable[[bytes, int, Random, Bytes], bytes]


def bundles() -> list[Path]:
    """Folders of all bundles, good and bad, in one order."""
    return sorted(file.parent for root in (_VECTORS, _KEPT) for file in root.rglob("dfmeta.json"))


def seeds(target: str, longest: int) -> Iterator[bytes]:
    """The inputs that a target begins with, each once, none longer than ``longest``."""
    seen = set()
    for raw in _inputs(target):
        if len(raw) <= longest and raw not in seen:
            seen.add(raw)
            yield raw


def _inputs(target: str, good: bool = False) -> Iterator[bytes]:
    """What a target takes, of all bundles or of the good ones."""
    folders = [folder for folder in bundles() if not good or "invalid" not in folder.parts]
    if target == "folder":
        yield from map(packing.of_folder, folders)
        return
    pattern = {"manifest": "dfmeta.json", "header": "*.safetensors", "graph": "*.onnx"}[target]
    for folder in folders:
        yield from (file.read_bytes() for file in sorted(folder.rglob(pattern)) if file.is_file())


def write_seeds(target: str, longest: int, folder: Path) -> int:
    """Put the seeds into a folder, under their digests; how many there are."""
    count = 0
    for raw in seeds(target, longest):
        (folder / hashlib.sha256(raw).hexdigest()[:16]).write_bytes(raw)
        count += 1
    return count


def mutator(target: str) -> Mutator:
    """What changes the inputs of a target."""
    manifests = Vocabulary.of(_inputs("manifest"))
    headers = Vocabulary.of(container_mutator.split(raw)[0] for raw in _inputs("header"))
    containers, graphs = list(_inputs("header", good=True)), list(_inputs("graph", good=True))

    def on_manifest(raw: bytes, limit: int, random: Random, plain: Bytes) -> bytes:
        return json_mutator.mutate(raw, limit, random, manifests, plain)

    def on_header(raw: bytes, limit: int, random: Random, plain: Bytes) -> bytes:
        return container_mutator.mutate(raw, limit, random, headers, containers, plain)

    def on_graph(raw: bytes, limit: int, random: Random, plain: Bytes) -> bytes:
        return onnx_mutator.mutate(raw, limit, random, graphs, plain)

    def on_folder(raw: bytes, limit: int, random: Random, plain: Bytes) -> bytes:
        return folder_mutator.mutate(raw, limit, random, manifests, headers, plain)

    return {"manifest": on_manifest, "header": on_header, "graph": on_graph, "folder": on_folder}[target]
