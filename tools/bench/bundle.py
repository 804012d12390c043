"""What a large bundle costs its reader: opening it, and validating it.

    python tools/bench/bundle.py --out bundle.json

A small real network is exported and published with 256 `spectrum` records of two wide sites, by class, as the package
writes them: a sidecar of about 1 GB. Every time is the median over fresh processes, of files in the page cache.
The limit of the machine is measured in the same run, in turn with the rest: one SHA-256 over the sidecar, and reading
it. Validation computes two for each byte (the file's digest, and the tensor's), so that half the rate of one, times the
cores in use, bounds it. The command's time is given beside its time for a bundle of one record, which is that of
starting and importing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dfmeta import pipeline
from dfmeta.graph import Graph, export_module
from dfmeta.records import Recording, RecordPlan, Taken, make_plan

CLASSES, UNITS = 10, 60_000
SIDECAR = "dfmeta/records.safetensors"
PREAMBLE = """
import json, sys, time
path, spent = sys.argv[1], {}
def took(name, start):
    spent[name] = time.perf_counter() - start
start = time.perf_counter()
"""
PROGRAMS = {
    "open": """
import dfmeta
took("import dfmeta", start)
from dfmeta import Bundle
took("import Bundle", start)
start = time.perf_counter()
bundle = Bundle.open(path)
took("manifest", start)
records = bundle.manifest.records
bundle.record_tensors(records[len(records) // 2].id)
took("manifest and one record", start)
""",
    "bundle": """
from dfmeta.bundle import validate
start, used = time.perf_counter(), time.process_time()
assert validate(path).valid
took("dfmeta.bundle.validate", start)
spent["processor time of dfmeta.bundle.validate"] = time.process_time() - used
with open("/proc/self/status") as status:
    spent["peak MiB"] = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
""",
    "pipeline": """
from dfmeta import validate
took("import validate", start)
start = time.perf_counter()
assert validate(path).valid
took("dfmeta.validate", start)
""",
    "command": """
import subprocess
subprocess.run([sys.executable, "-m", "dfmeta", "validate", path, "--json"], check=True, stdout=subprocess.DEVNULL)
took("dfmeta validate", start)
start = time.perf_counter()
subprocess.run([sys.executable, "-m", "dfmeta", "validate", sys.argv[2]], check=True, stdout=subprocess.DEVNULL)
took("dfmeta validate, one record", start)
spent["dfmeta validate, the difference"] = spent["dfmeta validate"] - spent["dfmeta validate, one record"]
""",
    "limits": """
import hashlib
buffer = memoryview(bytearray(2**20))
def read(digest=None):
    with open(path + "/dfmeta/records.safetensors", "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if digest is not None:
                digest.update(buffer[:count])
read()
took("one read", start)
start = time.perf_counter()
read(hashlib.sha256())
took("one sha256", start)
""",
}
RATES = {
    *("dfmeta.bundle.validate", "dfmeta.validate", "dfmeta validate", "dfmeta validate, the difference"),
    *("processor time of dfmeta.bundle.validate", "one sha256", "one read"),
}


def network() -> Graph:
    """A classifier of 64 x 64 pictures: what goes in has 4,096 elements, what its convolution gives 2,048."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, CLASSES))
    example = (torch.zeros(1, 1, 64, 64),)
    return export_module(module, example, input_names=["image"], output_names=["logits"], dynamic_batch=True)


def taken(plan: RecordPlan, generator: np.random.Generator) -> Taken:
    """A spectrum by class with the shapes, dtypes and laws of a recorded one; its numbers are drawn."""
    rank, features = int(plan.configuration["rank"]), plan.feature_count
    vectors = np.stack([np.linalg.qr(generator.normal(size=(features, rank)))[0].T for _ in range(CLASSES)])
    tensors: dict[str, np.ndarray] = {
        "count": np.full(CLASSES, UNITS // CLASSES, np.int64),
        "mean": generator.normal(size=(CLASSES, features)).astype(np.float32),
        "eigenvalues": -np.sort(-generator.random((CLASSES, rank)).astype(np.float32)),
        "eigenvectors": vectors.astype(np.float32),
        "residual_trace": generator.random(CLASSES).astype(np.float32),
    }
    return Taken(plan, True, tensors, UNITS, UNITS)


def varied(record: Taken, generator: np.random.Generator) -> Taken:
    """Another of the same shape: features in another order leave the rows orthonormal."""
    order = generator.permutation(record.plan.feature_count)
    wide: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(record.tensors[name][..., order]) for name in ("mean", "eigenvectors")
    }
    return replace(record, tensors={**record.tensors, **wide})


def build(path: Path, records: int) -> None:
    """Publish the bundle, through the writer that every release goes through."""
    generator = np.random.default_rng(0)
    graph = network()
    plans = [plan for plan in make_plan(graph, ["spectral"]) if plan.feature_count in (4096, 2048)]
    first = [taken(plan, generator) for plan in plans]
    rows = tuple(varied(first[number % len(first)], generator) for number in range(records))
    sites = tuple(plan.site for plan in plans)
    recording = Recording(sites, rows, unit_count=UNITS, batch_size=256, min_units=10, suppression="none")
    inputs = pipeline.graph_inputs(graph)
    release = pipeline.Release(name="bench")
    pipeline.publish(path, graph, recording, inputs=inputs, release=release, classes=CLASSES)


def measure(bundle: Path, small: Path, repetitions: int) -> dict[str, list[float]]:
    """Seconds by name, one for each repetition; the programs take turns, so that a busy machine is busy for all."""
    found: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for program in PROGRAMS.values():
            code = f"{PREAMBLE}{program}\nprint(json.dumps(spent))"
            arguments = [sys.executable, "-c", code, str(bundle), str(small)]
            done = subprocess.run(arguments, check=True, capture_output=True, text=True)
            for name, value in json.loads(done.stdout).items():
                found.setdefault(name, []).append(value)
    return found


def table(medians: Mapping[str, float], size: int) -> str:
    """A Markdown table."""
    lines = ["| what | time | rate |", "|---|---|---|"]
    for name, value in medians.items():
        if name == "peak MiB":
            lines.append(f"| peak memory of dfmeta.bundle.validate | {value:.0f} MiB | |")
            continue
        rate = f"{size / value / 1e6:.0f} MB/s" if name in RATES else ""
        lines.append(f"| {name} | {value * 1000:.1f} ms | {rate} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--records", default=256, type=int, help="how many; each holds about 4 MB")
    parser.add_argument("--repetitions", default=5, type=int, help="fresh processes for each time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "bundle"
        small = Path(name) / "small"
        build(bundle, options.records)
        build(small, 1)
        size = (bundle / SIDECAR).stat().st_size
        found = measure(bundle, small, options.repetitions)
        manifest = (bundle / "dfmeta.json").stat().st_size
    medians = {name: statistics.median(values) for name, values in found.items()}
    facts = {"records": options.records, "sidecar_bytes": size, "manifest_bytes": manifest, "cores": os.cpu_count()}
    document = {**facts, "load_average": os.getloadavg(), "medians": medians, "all": found}
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{options.records} records, sidecar {size:,} bytes, manifest {manifest:,} bytes, {os.cpu_count()} cores.\n")
    print(table(medians, size))


if __name__ == "__main__":
    main()
