"""`zskd`: images that make the teacher answer with a soft target, from nothing but its weights.

Nayak, Mopuri, Shaj, Babu and Chakraborty, "Zero-Shot Knowledge Distillation in Deep Networks", ICML 2019,
arXiv:1905.08114, sec. 3. Classes whose weights in the last layer point in like directions are alike. Soft targets of a
class are Dirichlet, with a concentration in proportion to these likenesses, with factor 1.0 for half of the targets and
0.1 for the others. Each image starts as uniform noise and is moved until ``softmax(T(x) / 20)`` meets its target: a
"data impression". No record is used, and no data.

The paper makes 24,000 images for MNIST (40,000 for CIFAR-10) of 1500 steps each, 100 at a time, and so do the defaults:
hours on a CPU. ``--set images=2000 --set iterations=200 --set lr=0.01`` is a first impression in minutes.

Where we differ from the published code, and why:

* images are kept inside the range that the preprocessing allows, by clipping; the code stretches each image to the full
  range after each step, which for a normalised input is another range, and which moves all pixels for one;
* the likenesses of a class are taken to 0..1 row by row, as in the paper; the code does so over the whole matrix first;
* the step is in units of the input's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.graph import Graph
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._descent import descend

# Sec. 4 of the paper: distilled with the same temperature, the soft term alone.
TRAINING = {
    "loss": "kl",
    "temperature": 20.0,
    "optimizer": "adam",
    "lr": 1e-3,
    "schedule": "constant",
    "batch": 64,
    "steps": 500 * 24_000 // 64,
}
SCALES = (1.0, 0.1)
# Of the published code: a concentration of 0 has no distribution.
LEAST_CONCENTRATION = 1e-4
_SEEDS = 2**62


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the impressions.

    Attributes:
        images: how many to make in all.
        batch: images optimised together.
        iterations: descent steps for each batch.
        lr: Adam's step, in units of the input's range.
        temperature: of the teacher's softmax.
    """

    images: int = 24_000
    batch: int = 100
    iterations: int = 1500
    lr: float = 1e-3
    temperature: float = 20.0


class DataImpressions:
    """Makes a fixed set of images, ``batch`` at a time, then draws from it."""

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._config = task, config
        self._concentrations = concentrations(class_weights(task)).cpu()
        self.steps = math.ceil(config.images / config.batch)
        self._inputs: list[Tensor] = []
        self._labels: list[Tensor] = []
        # torch has no public way to draw gamma variates from a generator of one's own.
        self._random = np.random.default_rng(int(task.integers(_SEEDS, 1)))

    def advance(self) -> float:
        """Make one batch; returns its final loss."""
        task, config = self._task, self._config
        done = config.batch * len(self._inputs)
        numbers = torch.arange(done, min(done + config.batch, config.images))
        targets = self._targets(numbers).to(task.device)
        start, span = self._noise(len(numbers))

        def loss_of(moved: Tensor) -> Tensor:
            return F.cross_entropy(task.logits(moved) / config.temperature, targets, reduction="sum")

        where = f"zskd, batch {len(self._inputs) + 1}"
        inputs, loss = descend(task, start, loss_of, config.iterations, config.lr * span, where)
        self._inputs.append(inputs)
        self._labels.append(targets.argmax(1))
        return loss / len(numbers)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw from the images with replacement; the label is the class that the soft target favours."""
        inputs, labels = torch.cat(self._inputs), torch.cat(self._labels)
        rows = self._task.integers(len(inputs), count)
        return inputs[rows], labels[rows]

    def _targets(self, numbers: Tensor) -> Tensor:
        """``[n, classes]`` for images of these numbers: class by class in turn, the factor changing with each round."""
        classes = self._task.classes
        scale = torch.tensor(SCALES)[(numbers // classes) % len(SCALES)]
        return dirichlet(scale[:, None] * self._concentrations[numbers % classes], self._random)

    def _noise(self, count: int) -> tuple[Tensor, float]:
        """Uniform over the input's range, or as wide as the input varies where it has none; and that width."""
        task = self._task
        uniform = task.uniform(count, *task.item_shape)
        span = task.high - task.low
        if bool(torch.isfinite(span).all()):
            return task.low + span * uniform, float(span.max())
        mean, deviation = task.input_scale()
        return task.clamp(mean + math.sqrt(12) * deviation * (uniform - 0.5)), math.sqrt(12) * float(deviation.mean())


def concentrations(weights: Tensor) -> Tensor:
    """``[classes, classes]`` Dirichlet concentrations, one class a row, from ``[classes, features]`` weights.

    Cosines of the classes' weights, each row taken to 0..1: 1 for the class itself.
    """
    directions = F.normalize(weights.double(), dim=1)
    cosines = directions @ directions.T
    least = cosines.min(1, keepdim=True).values
    width = (cosines.diagonal()[:, None] - least).clamp(min=1e-12)
    return ((cosines - least) / width).clamp(LEAST_CONCENTRATION, 1)


def dirichlet(concentration: Tensor, random: np.random.Generator) -> Tensor:
    """``[n, k]`` float32 samples for ``[n, k]`` concentrations.

    Normalised gamma variates (Devroye, "Non-Uniform Random Variate Generation", 1986), in logarithms: of a
    concentration ``a`` near 0 nearly all variates are too small for a float, but their logarithms, which are
    distributed as ``log G(a + 1) + log(U) / a``, are not.
    """
    alpha = concentration.double().cpu().numpy()
    logarithms = np.log(random.standard_gamma(alpha + 1)) - random.standard_exponential(alpha.shape) / alpha
    return torch.softmax(torch.from_numpy(logarithms), 1).float()


def class_weights(task: Task) -> Tensor:
    """``[classes, features]``: what the last operator multiplies its input with to get each class's logit.

    Raises:
        StepError: the output is not that of a Gemm or MatMul of a constant weight, a constant added or not.
    """
    graph = task.teacher.graph
    made_by = {name: node for node in graph.model.graph.node for name in node.output}
    constants = _constants(graph)
    node = made_by.get(task.output_name)
    while node is not None and node.op_type in ("Identity", "Add"):
        varying = [name for name in node.input if name not in constants]
        node = made_by.get(varying[0]) if len(varying) == 1 else None
    ours = node is not None and node.op_type in ("Gemm", "MatMul") and node.domain in ("", "ai.onnx")
    if node is None or not ours or node.input[0] in constants or node.input[1] not in constants:
        last = made_by.get(task.output_name)
        raise StepError(
            f"zskd, output {task.output_name!r}",
            f"an operator {last.op_type if last else 'that is none'} there",
            "a Gemm or MatMul with a constant weight",
            "Use another method, or export the model so that its logits are the output.",
        )
    weight: Tensor = task.teacher.run({}, [node.input[1]])[node.input[1]].detach()
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return weight if turned else weight.T


def _constants(graph: Graph) -> set[str]:
    """Values that depend on no input."""
    found = set(graph.initializer_names) | {""}
    for node in graph.model.graph.node:
        if all(name in found for name in node.input):
            found.update(node.output)
    return found


def build(task: Task, config: Config) -> DataImpressions:
    """The method for ``task``.

    Raises:
        StepError: a graph whose last operator is not a linear one.
    """
    return DataImpressions(task, config)
