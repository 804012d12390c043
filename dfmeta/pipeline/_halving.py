"""Successive halving: all candidates are trained for a short time, the better half for longer, and so on.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", arXiv:1502.07943,
sec. 3. Each round has about as many steps of training in all as the one before. What is better is told by synthetic
inputs on which none was trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dfmeta.compress import distill as distillation
from dfmeta.compress import finetune
from dfmeta.compress.hints import Hints
from dfmeta.errors import DataError, Diverged
from dfmeta.graph import Graph, TorchGraph
from dfmeta.pipeline._candidates import TEACHER, Candidate, Workshop
from dfmeta.pipeline.closed_form import Progress
from dfmeta.synthesis import Task

# One in so many inputs is held out; fewer than so many distinct ones tell nothing apart.
_HELD, LEAST = 5, 10
FINALISTS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Synthetic inputs in two parts that have none in common.

    Attributes:
        training: ``[n, ...]`` to train on, and to record on.
        held: ``[m, ...]`` to choose by.
        wanted: ``[m, classes]`` the teacher's logits of those.
    """

    training: Tensor
    held: Tensor
    wanted: Tensor

    @classmethod
    def of(cls, inputs: Tensor, teacher: Graph, seed: int) -> Material:
        """Split inputs; of those that are there several times, as a method that draws has them, one counts.

        Raises:
            DataError: too few different ones.
        """
        seen = {one.numpy().tobytes(): place for place, one in reversed([*enumerate(inputs)])}
        places = torch.tensor(sorted(seen.values()), dtype=torch.int64)
        if len(places) < LEAST:
            raise DataError("synthetic inputs", f"{len(places)} different ones", f"{LEAST} or more", "Raise --count.")
        order = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))]
        held = inputs[order[: len(order) // _HELD]]
        return cls(inputs[order[len(order) // _HELD :]], held, _logits(TorchGraph(teacher).eval(), held))


@dataclass(frozen=True, slots=True)
class Score:
    """How far a student agrees with its teacher on the inputs that were held out.

    Attributes:
        steps: of training that it had by then.
        agreement: percent of inputs of which both name the same class.
        error: mean squared difference of the logits, in units of the teacher's variance.
    """

    steps: int
    agreement: float
    error: float

    @classmethod
    def of(cls, steps: int, ours: Tensor, wanted: Tensor) -> Score:
        """Of ``[m, classes]`` logits."""
        same = (ours.argmax(1) == wanted.argmax(1)).double().mean()
        error = (ours - wanted).square().mean() / wanted.var().clamp(min=1e-12)
        return cls(steps, 100 * float(same), float(error))

    @property
    def rank(self) -> tuple[float, float]:
        """The least is best; a student whose logits are not finite comes last."""
        return (-self.agreement, self.error) if math.isfinite(self.error) else (math.inf, math.inf)


@dataclass
class Trainee:
    """A candidate in training.

    Attributes:
        candidate: it.
        graph: with its present weights; behind by a round for one that is trained as a module.
        scores: after each round.
        dropped: why it could not be trained further; empty where it could.
    """

    candidate: Candidate
    graph: Graph
    scores: list[Score] = field(default_factory=list)
    dropped: str = ""

    @property
    def rank(self) -> tuple[float, float]:
        """By the last score; the teacher, which has none, is first."""
        if self.dropped:
            return (math.inf, math.inf)
        return self.scores[-1].rank if self.scores else (-math.inf, 0.0)

    @property
    def steps(self) -> int:
        """Of training, so far."""
        return self.scores[-1].steps if self.scores else 0


@dataclass(frozen=True, slots=True)
class School:
    """Trains candidates, all on the same inputs.

    Attributes:
        workshop: that made them.
        material: inputs.
        config: of distilling; its steps do not count.
        seed: of batches and shifts.
        device: of training.
        progress: called with stage, steps done, steps in all, and loss.
    """

    workshop: Workshop
    material: Material
    config: distillation.Config
    seed: int
    device: str
    progress: Progress | None

    def halved(self, candidates: Sequence[Candidate], steps: int) -> list[Trainee]:
        """All of them, the best first, after the rounds that come before the last.

        Args:
            candidates: to begin with.
            steps: of the last round, which is not run here.
        """
        trainees = [Trainee(one, one.graph) for one in candidates]
        rounds = self.rounds(len(trainees), steps)
        left, out = trainees, list[Trainee]()
        for number, (size, count) in enumerate(rounds):
            self.round(left, count, f"round {number + 1} of {len(rounds) + 1}", self.seed + number)
            left = sorted(left, key=lambda one: one.rank)
            left, out = left[:size], left[size:] + out
        return left + out

    @staticmethod
    def rounds(count: int, steps: int) -> list[tuple[int, int]]:
        """How many stay after each round, and how many steps it takes."""
        sizes = []
        while count > FINALISTS:
            count = max(FINALISTS, math.ceil(count / 2))
            sizes.append(count)
        return [(size, max(1, steps >> (len(sizes) - place))) for place, size in enumerate(sizes)]

    def round(self, trainees: Sequence[Trainee], steps: int, stage: str, seed: int) -> None:
        """Train each for some steps, and see how far it has come."""
        for place, one in enumerate(trainees):
            if one.candidate.name != TEACHER and not one.dropped:
                self._train(one, steps, seed, _part(self.progress, stage, place, len(trainees)))
            self._score(one, steps)

    def _train(self, one: Trainee, steps: int, seed: int, progress: Progress | None) -> None:
        try:
            if one.candidate.module is not None:
                self._distil(one, one.candidate.module, steps, seed, progress)
            else:
                source, config = self.workshop.source, finetune.Config(steps=steps)
                inputs = self.material.training
                tuned = finetune.run(one.graph, source.graph, inputs, config, progress, seed=seed, device=self.device)
                one.graph = tuned.graph
        except Diverged as error:
            one.dropped = str(error)

    def _distil(self, one: Trainee, module: nn.Module, steps: int, seed: int, progress: Progress | None) -> None:
        task: Task = self.workshop.task
        generator = torch.Generator().manual_seed(seed)
        given = self.material.training.to(task.device)

        def draw(count: int) -> Tensor:
            return given[torch.randint(len(given), (count,), generator=generator).to(given.device)]

        hints = Hints.between(task.teacher, module, task.input_name, task.output_name)
        config = replace(self.config, steps=steps, seconds=None)
        distillation.distill(module, task.logits, draw, config, generator, progress, hints=hints)
        one.graph = self.workshop.exported(module)

    def _score(self, one: Trainee, steps: int) -> None:
        if one.dropped:
            return
        ours = _logits(TorchGraph(one.graph).eval(), self.material.held)
        trained = 0 if one.candidate.name == TEACHER else one.steps + steps
        one.scores.append(Score.of(trained, ours, self.material.wanted))


@torch.no_grad()
def _logits(network: TorchGraph, inputs: Tensor) -> Tensor:
    """``[n, classes]``, on the CPU."""
    found: list[Tensor] = [network(part) for part in torch.split(inputs, 256)]
    return torch.cat(found)


def _part(progress: Progress | None, stage: str, place: int, places: int) -> Progress | None:
    """Progress of one of several in the same stage."""
    if progress is None:
        return None

    def told(_: str, done: int, total: int, loss: float) -> None:
        progress(stage, place * total + done, places * total, loss)

    return told
