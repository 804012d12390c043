"""The consumer's side: from a bundle alone to a small ONNX file, checked with onnxruntime.

    python examples/consume.py --out student.onnx

It reads the bundle beside this file: a LeNet-5 and what MNIST did to it. MNIST itself is nowhere near.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

import dfmeta
from dfmeta.compress.distill import Config

BUNDLE = Path(__file__).resolve().parent / "lenet5-mnist"


def agreement(student: bytes, teacher: bytes, images: np.ndarray) -> float:
    """Percent of images in which both models see the same class, by onnxruntime alone."""
    seen = []
    for model in (student, teacher):
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        # One image at a time: a student is exported with batch 1, as small devices run it.
        seen.append(np.array([session.run(None, {name: image[None]})[0].argmax() for image in images]))
    return 100 * float((seen[0] == seen[1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="ONNX file to write")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--student", default="lenet5-half")
    parser.add_argument("--steps", type=int, default=300, help="of the student's training")
    options = parser.parse_args()

    bundle = dfmeta.Bundle.open(options.bundle)
    print(f"{bundle.manifest.model.name}: {len(bundle.manifest.records)} records, identity {bundle.identity[:12]}")

    config = Config(steps=options.steps)
    done = dfmeta.distill(options.bundle, options.out, student=options.student, config=config)
    print(f"{done.path}: {done.costs.parameters:,} parameters; the teacher has {done.teacher_costs.parameters:,}")

    # Fresh inputs, drawn with a seed that the student was not trained with.
    made = options.out.with_suffix(".safetensors")
    dfmeta.reconstruct(options.bundle, made, count=500, seed=1)
    percent = agreement(options.out.read_bytes(), bundle.graph_bytes(), load_file(made)["x"])
    print(f"agreement on synthetic inputs: {percent:.1f} %")


if __name__ == "__main__":
    main()
