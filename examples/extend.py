"""A synthesis method and a student from outside dfmeta, in one file.

    python examples/extend.py --out student.onnx

A method is a module with a `Config` and a `build`, as this file is. An entry point gives it a name:

    [project.entry-points."dfmeta.synthesis"]
    class-gaussian = "extend"

after which `dfmeta distill BUNDLE --method class-gaussian` finds it. Without one, its parts are called as in
`main` below. A student needs nothing at all: `--student extend:small` names the function.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import dfmeta
from dfmeta.bundle import write_file, write_safetensors
from dfmeta.compress.distill import Config as Training
from dfmeta.pipeline import make_task, open_release
from dfmeta.synthesis import Task

BUNDLE = Path(__file__).resolve().parent / "lenet5-mnist"


@dataclass(frozen=True, slots=True)
class Config:
    """What `--set` can change.

    Attributes:
        spread: how far from the class mean inputs are drawn, in recorded deviations.
    """

    spread: float = 1.0


class ClassGaussian:
    """Draws each input from the Gaussian that the records give for its class. Nothing is optimised."""

    steps = 0

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._spread = task, config.spread
        found = task.records.need(task.input_name, "spectrum", by_class=True, preset="spectral").tensors
        self._mean = found["mean"]
        self._directions = found["eigenvalues"].sqrt()[:, :, None] * found["eigenvectors"]

    def advance(self) -> float:
        """Nothing to optimise."""
        return 0.0

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """`[count, ...]` inputs and the classes that they were drawn for."""
        labels = torch.randint(self._task.classes, (count,), generator=self._task.generator)
        inputs = self._mean[labels]
        for label in range(self._task.classes):
            rows = labels == label
            noise = self._task.normal(int(rows.sum()), self._directions.shape[1])
            inputs[rows] += self._spread * noise @ self._directions[label]
        return self._task.clamp(inputs.reshape(count, *self._task.item_shape)), labels


def build(task: Task, config: Config) -> ClassGaussian:
    """What dfmeta calls."""
    return ClassGaussian(task, config)


def small(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A student: two strided convolutions and one dense layer."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 8) * (width // 8), classes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="ONNX file to write")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    opened = open_release(options.bundle)
    method = build(make_task(opened.bundle, opened.graph, options.seed), Config())
    with torch.no_grad():
        inputs, labels = method.sample(5000)
    made = options.out.with_suffix(".safetensors")
    write_file(made, write_safetensors({"x": inputs.numpy(), "y": labels.numpy()}, {"dfmeta": "synthetic"}))

    done = dfmeta.distill(
        options.bundle,
        options.out,
        student="extend:small",
        data=str(made),
        seed=options.seed,
        config=Training(steps=300),
    )
    print(f"{done.path}: {done.costs.parameters:,} parameters, {done.costs.macs:,} MACs")
    print(f"agreement on its own inputs: {done.agreement:.1f} %")


if __name__ == "__main__":
    main()
