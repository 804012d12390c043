"""What a synthesis method is given, and what it must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from dfmeta.graph import TorchGraph
from dfmeta.records import PublishedRecords, Statistic


@dataclass(frozen=True, slots=True)
class Task:
    """Everything a method may use: the released model, its records and, where its module says so, more.

    A module that declares ``USES`` names what else it needs: ``student``, ``data``, or both. Only then is it given.
    All tensors are on ``device``.

    Attributes:
        teacher: the released graph, frozen.
        records: what was published about it.
        input_name: the graph input to synthesise.
        item_shape: shape of one input, without the batch.
        low, high: least and greatest value each channel can take, broadcastable to ``item_shape``; infinite
            where the manifest does not say.
        output_name: the graph output that classifies.
        classes: number of classes.
        generator: the only source of randomness; on the CPU, so that a seed means the same on every device.
        device: where the teacher, the records and everything made from them are.
        student: the network in training, or one that was trained before; differentiable.
        data: how many units to draw, to ``[n, *item_shape]`` inputs and ``[n]`` labels (-1 where there are none).
    """

    teacher: TorchGraph
    records: PublishedRecords
    input_name: str
    item_shape: tuple[int, ...]
    low: Tensor
    high: Tensor
    output_name: str
    classes: int
    generator: torch.Generator
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    student: nn.Module | None = None
    data: Callable[[int], tuple[Tensor, Tensor]] | None = None

    def normal(self, *shape: int) -> Tensor:
        """Standard normal noise."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on 0 to 1."""
        return torch.rand(*shape, generator=self.generator).to(self.device)

    def integers(self, below: int, count: int) -> Tensor:
        """``[count]`` int64, each equally likely to be any from 0 to ``below - 1``."""
        return torch.randint(below, (count,), generator=self.generator).to(self.device)

    def permutation(self, count: int) -> Tensor:
        """``[count]`` int64: 0 to ``count - 1`` in random order."""
        return torch.randperm(count, generator=self.generator).to(self.device)

    def clamp(self, inputs: Tensor) -> Tensor:
        """The nearest inputs that the preprocessing could have produced."""
        return torch.minimum(torch.maximum(inputs, self.low), self.high)

    def values(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The named values of the teacher for ``inputs``, differentiable."""
        found = self.teacher.run({self.input_name: inputs}, [n for n in names if n != self.input_name])
        return {**found, self.input_name: inputs} if self.input_name in names else found

    def logits(self, inputs: Tensor) -> Tensor:
        """``[n, classes]`` what the teacher says of ``inputs``, differentiable."""
        return self.values(inputs, [self.output_name])[self.output_name]

    def input_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the input, broadcastable to ``item_shape``.

        From the input's recorded moments (averaged to one pair a channel), else from the range of the input,
        else standard normal.
        """
        found = self.records.of(self.input_name, "moments", by_class=False)
        if found is not None:
            return _channel_scale(found, self.item_shape)
        if bool(torch.isfinite(self.low).all() and torch.isfinite(self.high).all()):
            return (self.low + self.high) / 2, (self.high - self.low) / 12**0.5
        return torch.zeros((), device=self.device), torch.ones((), device=self.device)


def _channel_scale(found: Statistic, item_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean, variance = found.tensors["mean"][0], found.tensors["var"][0]
    channels = item_shape[0] if len(item_shape) > 1 else 1
    mean, variance = mean.reshape(channels, -1), variance.reshape(channels, -1)
    centre = mean.mean(1)
    # Total variance: what each position varies by, plus how far positions' means lie apart.
    spread = (variance + (mean - centre[:, None]).square()).mean(1).sqrt()
    shape = (channels, *[1] * (len(item_shape) - 1))
    return centre.reshape(shape), spread.reshape(shape)


class Synthesis(Protocol):
    """One run of a method. Optimisation first, samples afterwards; or, where ``student_steps`` says so, in turns.

    ``build(task, config)`` of the method's module makes one; a module whose method has variants
    (``name:variant``) lists them in ``VARIANTS`` and takes ``variant`` as a third argument. Its ``Config`` is a
    frozen dataclass of numbers, each with a default: the paper's, where there is a paper. What the paper trains
    its student with is in ``TRAINING``, a mapping of fields of :class:`dfmeta.compress.distill.Config`; a user's own
    settings go before it.

    A method may also have

    * ``student_steps: int``: it learns along with the student: :meth:`advance` is called once before every so many
      steps of the student, as often as the student's training lasts, and ``steps`` is what it takes when it is run
      on its own against a student that does not learn;
    * ``teach(inputs) -> logits``: what to tell the student of an input, where that is not simply the teacher's output.
    """

    steps: int
    """How many calls of :meth:`advance` the method asks for."""

    def advance(self) -> float:
        """One optimisation step; returns its loss."""
        ...

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """``[count, *item_shape]`` inputs and ``[count]`` int64 classes they were made for."""
        ...
