"""What recording costs: wall time as a ratio to the bare forward pass, and peak memory.

    python tools/bench/record.py --shared ../shared --out record.json

The bare pass is the same engine, options, threads and batches with no taps; both are timed in turn, in one process,
and the ratio is the median over the repetitions. Reading and preprocessing data is in neither. Memory is the peak of a
fresh process for each row.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from dfmeta.data import feed, from_flags, open_data
from dfmeta.graph import Graph, OrtGraph
from dfmeta.pipeline import graph_inputs
from dfmeta.records import DEFAULT_MEMORY_LIMIT, PRESETS, Recorder, RecordPlan, make_plan

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = 256
Batches = Sequence[tuple[dict[str, np.ndarray], np.ndarray]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """A graph, real data for it, and how one becomes the other's input."""

    name: str
    graph: str
    data: str
    flags: dict[str, object]


MODELS = (
    Model("LeNet-5, MNIST", "examples/lenet5-mnist.onnx", "data/mnist.npz:train", {"scale": 1 / 255, "pad": 2}),
    Model(
        "ResNet-20, CIFAR-10",
        "models/resnet20-cifar10.onnx",
        "data/cifar10-jpeg.zip:train",
        {"scale": 1 / 255, "mean": MEAN, "std": STD},
    ),
)


@dataclass(frozen=True)
class Cost:
    """One row: times are of one image, in milliseconds."""

    model: str
    what: str
    records: int
    bare: float
    recording: float
    ratio: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a process that records."""

    model: str
    what: str
    images: int
    features: int
    peak_mb: float


def loaded(model: Model, shared: Path, count: int) -> tuple[Graph, Batches]:
    """The graph and some preprocessed batches."""
    place = REPOSITORY if model.graph.startswith("examples") else shared
    graph = Graph.from_file(place / model.graph)
    inputs = graph_inputs(graph, from_flags(**model.flags))  # type: ignore[arg-type]
    source = open_data(str(shared / model.data), limit=count, seed=0)
    batches = [(batch.inputs, batch.labels) for batch in feed(source, inputs, BATCH)]
    return graph, [(arrays, labels) for arrays, labels in batches if labels is not None]


def cost(name: str, what: str, graph: Graph, batches: Batches, plan: Sequence[RecordPlan], repeat: int) -> Cost:
    """Time the bare pass and the recording one in turn, each by one session that lives through all rounds."""
    threads = torch.get_num_threads()
    session = OrtGraph(graph, threads=threads, dynamic_batch=True)
    units = sum(len(labels) for _, labels in batches)
    bare, recording = [], []
    with Recorder(graph, plan, classes=10, threads=threads) as recorder:
        for number in range(repeat + 1):
            started = time.perf_counter()
            for arrays, _ in batches:
                session.run(arrays)
            middle = time.perf_counter()
            for arrays, labels in batches:
                recorder.update(arrays, labels)
            ended = time.perf_counter()
            if number:  # the first round warms caches and the memory pools of both sessions
                bare.append(1e3 * (middle - started) / units)
                recording.append(1e3 * (ended - middle) / units)
    ratios = [one / other for one, other in zip(recording, bare, strict=True)]
    middles = statistics.median(bare), statistics.median(recording), statistics.median(ratios)
    return Cost(name, what, len(plan), *middles, min(ratios), max(ratios))


def rows(graph: Graph) -> dict[str, tuple[RecordPlan, ...]]:
    """What is timed: each preset, and each kind of record of each preset alone."""
    found = {}
    for preset in PRESETS:
        plan = make_plan(graph, [preset], classes=10, memory_limit=DEFAULT_MEMORY_LIMIT)
        found[preset] = plan
        kinds = dict.fromkeys(entry.kind for entry in plan)
        if len(kinds) > 1:
            found |= {f"{preset}: {kind}": tuple(entry for entry in plan if entry.kind == kind) for kind in kinds}
    return found


def peak(model: str, preset: str, images: int, shared: Path) -> Memory:
    """Record in a fresh process and ask for its peak."""
    words = [sys.executable, __file__, "--shared", str(shared), "--child", model, preset, str(images)]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return Memory(model, preset, images, found["features"], found["peak_mb"])


def child(model: str, preset: str, images: int, shared: Path) -> None:
    """What :func:`peak` runs: the data is streamed, so that it is not in memory as a whole."""
    chosen = next(entry for entry in MODELS if entry.name == model)
    graph, batches = loaded(chosen, shared, 4 * BATCH)
    plan = make_plan(graph, [preset], classes=10, memory_limit=DEFAULT_MEMORY_LIMIT)
    with Recorder(graph, plan, classes=10, threads=torch.get_num_threads()) as recorder:
        for number in range(-(-images // BATCH)):
            recorder.update(*batches[number % len(batches)])
        recorder.finish()
    # Not ru_maxrss, which a process inherits from the one that started it.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    used = int(line.split()[1]) / 1024
    features = max(entry.feature_count for entry in plan)
    print(json.dumps({"peak_mb": used, "features": features}))


def table(costs: Sequence[Cost], memories: Sequence[Memory]) -> str:
    """Two Markdown tables."""
    lines = [
        "| model | recording | records | bare ms an image | recording ms | ratio (least to greatest) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.model} | {row.what} | {row.records} | {row.bare:.3f} | {row.recording:.3f} | {row.ratio:.2f} "
        f"({row.least:.2f} to {row.greatest:.2f}) |"
        for row in costs
    ]
    lines += ["", "| model | preset | images | most features | peak MB |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.model} | {row.what} | {row.images:,} | {row.features:,} | {row.peak_mb:,.0f} |" for row in memories
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and models/")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--images", type=int, default=1024, help="images of one timing")
    parser.add_argument("--only", default="", help="rows whose name this regular expression finds; or memory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child[0], options.child[1], int(options.child[2]), options.shared)
        return
    costs, memories = [], []
    for model in MODELS:
        graph, batches = loaded(model, options.shared, options.images)
        for what, plan in rows(graph).items():
            if re.search(options.only, f"{model.name} {what}"):
                costs.append(cost(model.name, what, graph, batches, plan, options.repeat))
                print(costs[-1], file=sys.stderr, flush=True)
    if options.only in ("", "memory"):
        memories += [peak(MODELS[1].name, "all-layers", images, options.shared) for images in (1024, 4096, 16384)]
        memories += [peak(MODELS[0].name, preset, 1024, options.shared) for preset in PRESETS]
        # Covariances of ResNet-20's large maps take gigabytes, which `dfmeta record --plan` says, and many minutes.
        small = [preset for preset in PRESETS if not preset.startswith("spectral")]
        memories += [peak(MODELS[1].name, preset, 1024, options.shared) for preset in small]
    if options.out:
        document = {"costs": [asdict(row) for row in costs], "memories": [asdict(row) for row in memories]}
        options.out.write_text(json.dumps(document, indent=2) + "\n")
    print(table(costs, memories))


if __name__ == "__main__":
    main()
