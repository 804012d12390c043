"""``finetune``: a pruned, factorised or quantized graph taught by the teacher, on synthetic inputs.

Nothing but the teacher's own answers is asked for, on inputs that were made from the records: logits, and the values
inside that both graphs have under the same name and in the same shape (Romero et al., "FitNets: Hints for Thin Deep
Nets", arXiv:1412.6550, sec. 2.2). A compressed graph has most of them: cuts of inner channels and factorisation leave
the value that a block gives to the next one as wide as it was. Synthetic inputs leave much undetermined at the output
alone.

Quantized weights stay on their grid, zeros stay zero, and BatchNormalization keeps its statistics
(:mod:`~._held_weights`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dfmeta import _settings
from dfmeta._settings import Range, weight, within
from dfmeta.compress._held_weights import Learning
from dfmeta.compress._optimizer import Schedule, make_optimizer
from dfmeta.compress.augment import augmented
from dfmeta.errors import Diverged, StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.graph.operator_inputs import operator_inputs

__all__ = ["REQUIRES", "Config", "Result", "check", "matched_values", "run"]

REQUIRES: tuple[str, ...] = ()
Watch = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the step.

    Attributes:
        steps: of the optimiser (Adam).
        batch: inputs in a step, drawn anew from all that there are.
        lr: peak of the learning rate.
        schedule: ``one-cycle``, ``cosine`` from the peak to 0, or ``constant``.
        shift: images are moved by up to this share of their height and width, edges repeated cyclically.
        flip: whether each image is mirrored with probability one half.
        features: weight of what the values inside lack of the teacher's, against the logits' 1; 0 leaves them out.
    """

    steps: int = 500
    batch: int = 128
    lr: float = within(1e-3, Range(above=0, below=10))
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    shift: float = within(0.03, Range(least=0, below=1))
    flip: bool = False
    features: float = weight(1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the step made.

    Attributes:
        graph: as it was given, with other weights.
        steps: that were taken.
        before, after: mean squared error of the logits in units of the teacher's variance, over at most 1,024 of the
            inputs, as they are.
        matched: names of the values inside that were matched.
    """

    graph: Graph
    steps: int
    before: float
    after: float
    matched: tuple[str, ...]


def check(config: Config) -> None:
    """Refuse settings that say nothing, with the errors of :func:`run`."""
    _settings.check(config, "finetune")


def run(
    graph: Graph,
    teacher: Graph,
    inputs: Tensor,
    config: Config | None = None,
    watch: Watch | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Result:
    """Fine-tune a graph against its teacher.

    Args:
        graph: with the teacher's input and output names.
        teacher: the graph that was recorded.
        inputs: ``[n, ...]`` synthetic inputs.
        config: settings.
        watch: called with ``finetune``, steps done, steps in all, and the loss.
        seed: of batches, shifts and flips.
        device: where both are run.

    Raises:
        DataError, UnknownName: settings out of range.
        StepError: no inputs, or a graph without weights.
        Diverged: the loss is no longer finite.
    """
    config = config or Config()
    check(config)
    if not len(inputs):
        raise StepError("finetune", "no inputs", "at least one")
    learning = Learning(graph)
    if not list(learning.module.parameters()):
        raise StepError(graph.where, "no weights that could learn", "at least one", "Leave the step out.")
    place = torch.device(device)
    given = inputs.to(place)
    student = _fast(learning.module.to(place))
    wanted = _fast(TorchGraph(teacher).to(place).requires_grad_(False).eval())
    pair = _Pair(student, wanted, matched_values(graph, teacher) if config.features else ())
    before = pair.distance(given[:1024])
    _train(pair, given, config, seed, watch)
    learning.module.to("cpu")
    return Result(learning.graph(), config.steps, before, pair.to("cpu").distance(inputs[:1024].cpu()), pair.names)


def matched_values(graph: Graph, teacher: Graph) -> tuple[str, ...]:
    """What the teacher's weights read that is in the other graph too, in the same shape; the inputs left out."""
    given = {value.name for value in teacher.inputs}
    read = dict.fromkeys(entry.value for entry in operator_inputs(teacher))
    return tuple(name for name in read if name not in given and _same_shape(graph, teacher, name))


def _same_shape(graph: Graph, teacher: Graph, name: str) -> bool:
    """Behind the batch axis, which has a name of its own in each."""
    return name in graph.values and graph.value(name).shape[1:] == teacher.value(name).shape[1:]


def _fast(module: TorchGraph) -> TorchGraph:
    """On a CPU, convolutions of few channels take two thirds of the time in this layout."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _by_pixel(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


class _Pair:
    """Student and teacher, side by side.

    Args:
        student: in training.
        teacher: frozen.
        names: values to be matched inside.
    """

    def __init__(self, student: TorchGraph, teacher: TorchGraph, names: Sequence[str]) -> None:
        self.student, self.teacher, self.names = student, teacher, tuple(names)
        self._output = teacher.graph.outputs[0].name
        self._input = teacher.graph.inputs[0].name

    def to(self, device: str) -> _Pair:
        """Both elsewhere."""
        return _Pair(self.student.to(device), self.teacher.to(device), self.names)

    def loss(self, inputs: Tensor, features: float) -> Tensor:
        """Mean squared errors in units of the teacher's variance: of the logits, and the mean of those inside."""
        wanted_names = [self._output, *self.names]
        with torch.no_grad():
            theirs = self.teacher.run({self._input: inputs}, wanted_names)
        ours = self.student.run({self._input: inputs}, wanted_names)
        found = _error(ours[self._output], theirs[self._output])
        if self.names:
            inside = torch.stack([_error(ours[name], theirs[name]) for name in self.names])
            found = found + features * inside.mean()
        return found

    @torch.no_grad()
    def distance(self, inputs: Tensor) -> float:
        """Of the logits alone."""
        ours, theirs = (
            torch.cat([one.run({self._input: part}, [self._output])[self._output] for part in torch.split(inputs, 256)])
            for one in (self.student, self.teacher)
        )
        return float(_error(ours, theirs))


def _error(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean() / theirs.var().clamp(min=1e-12)


def _train(pair: _Pair, inputs: Tensor, config: Config, seed: int, watch: Watch | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(pair.student, "adam", config.lr, 0.0)
    schedule = Schedule(optimizer, config.schedule, config.lr, config.steps, None)
    started = time.monotonic()
    for step in range(config.steps):
        schedule.set(step)
        rows = torch.randint(len(inputs), (config.batch,), generator=generator).to(inputs.device)
        batch = _by_pixel(augmented(inputs[rows], config.shift, config.flip, generator))
        error = pair.loss(batch, config.features)
        value = float(error.detach())
        if not bool(torch.isfinite(error.detach())):
            raise _diverged(step + 1, value, time.monotonic() - started)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if watch is not None:
            watch("finetune", step + 1, config.steps, value)


def _diverged(step: int, loss: float, seconds: float) -> Diverged:
    where = f"finetune, step {step} (after {seconds:.0f} s)"
    error = Diverged(where, f"a loss of {loss}", "a finite number", "Lower the learning rate (lr).")
    error.step = step
    return error
