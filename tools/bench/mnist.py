"""Data-free distillation on MNIST, several seeds: the figures of the README.

    python tools/bench/mnist.py --data mnist.npz --out mnist.json

Records are taken once of `examples/lenet5-mnist.onnx`; every student then sees the bundle alone, but for the rows
named "real data". Each figure is that of the last training step, on the test set, with onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dfmeta import pipeline
from dfmeta.data import from_flags
from dfmeta.graph import Graph

REPOSITORY = Path(__file__).resolve().parents[2]
REAL = "real data"
ROWS = (
    ("lenet5-half", "matched-generator"),
    ("lenet5-half", "noise"),
    ("lenet5-half", REAL),
    ("lenet5-half-lopes", "lopes:top-layer"),
    ("lenet5-half-lopes", "noise"),
)


@dataclass(frozen=True)
class Figure:
    """One student: percentages are of the 10,000 test images."""

    student: str
    method: str
    seed: int
    accuracy: float
    agreement: float
    parameters: int
    macs: int
    bytes: int
    seconds: float


def measure(folder: Path, bundle: Path, data: str, student: str, method: str, seed: int) -> Figure:
    """Distil and evaluate one student."""
    out = folder / f"{student}-{method.replace(':', '-').replace(' ', '-')}-{seed}.onnx"
    started = time.monotonic()
    real = f"{data}:train" if method == REAL else None
    name = None if real else method
    pipeline.distill(bundle, out, student=student, seed=seed, method=name, data=real)
    seconds = time.monotonic() - started
    found = pipeline.evaluate(out, f"{data}:test", bundle=bundle)
    assert found.accuracy is not None  # noqa: S101 - the test set has labels
    assert found.agreement is not None  # noqa: S101 - a bundle was given
    cost = found.costs
    return Figure(
        student, method, seed, found.accuracy, found.agreement, cost.parameters, cost.macs, cost.bytes, seconds
    )


def table(figures: Sequence[Figure], teacher: float) -> str:
    """A Markdown table: the median over seeds, with the least and the greatest."""
    lines = [
        f"Teacher: LeNet-5, {teacher:.2f} %.",
        "",
        "| student | inputs from | accuracy (min to max) | agreement | parameters | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((figure.student, figure.method) for figure in figures):
        group = [figure for figure in figures if (figure.student, figure.method) == key]
        accuracy = sorted(figure.accuracy for figure in group)
        lines.append(
            f"| `{key[0]}` | {key[1]} | {statistics.median(accuracy):.2f} ({accuracy[0]:.2f} to {accuracy[-1]:.2f}) "
            f"| {statistics.median(figure.agreement for figure in group):.2f} | {group[0].parameters:,} "
            f"| {statistics.median(figure.seconds for figure in group):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="mnist.npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "bundle"
        pipeline.record(
            Graph.from_file(REPOSITORY / "examples" / "lenet5-mnist.onnx"),
            f"{options.data}:train",
            bundle,
            presets=["top-layer", "all-layers", "spectral"],
            preprocessing=from_flags(scale=1 / 255, pad=2),
        )
        teacher = pipeline.evaluate(bundle / "model.onnx", f"{options.data}:test", bundle=bundle).accuracy or 0.0
        for seed in map(int, options.seeds.split(",")):
            for student, method in ROWS:
                figures.append(measure(folder, bundle, options.data, student, method, seed))
                print(figures[-1], flush=True)
                document = {"teacher": teacher, "figures": [asdict(figure) for figure in figures]}
                options.out.write_text(json.dumps(document, indent=2) + "\n")
    print(table(figures, teacher))


if __name__ == "__main__":
    main()
