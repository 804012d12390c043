"""`matched-generator`: a label-conditional generator whose batches match the records, class by class.

One small network is trained once and then gives inputs for nothing, instead of an optimisation for each image.
Its loss is, averaged over all records of all sites, the kinds' own distance between the batch and the record
of its class, plus cross-entropy of the teacher to the label. It starts from what the records say of the input
site (a sample of the class's Gaussian, or the class mean) and learns a correction, so that with a `spectrum` of
the input the first batch is already plausible and without one it still works.

Kin: moment matching over a batch instead of a target for each image, DeepInversion (arXiv:1912.08795, eq. 4);
an amortised generator, DAFL (arXiv:1904.01186); classes matched one by one, FDDA (arXiv:2109.04186); a memory
of past images against forgetting, Fast-DFKD (arXiv:2112.06253, sec. 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmeta._settings import share
from dfmeta.errors import StepError
from dfmeta.records import Statistic
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._generators import Generator

POOL_BYTES = 512_000_000
# Features that hardly vary make single steps steep.
GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the generator's training.

    Attributes:
        iterations: optimisation steps.
        batch: inputs in a step, shared out among the classes.
        per_class: fewest inputs a class gets; with many classes a step takes some of them in turn.
        lr: peak of the one-cycle schedule (Adam).
        width: channels of the generator's last stage (times eight units for inputs that are not images).
        match_weight: weight of the records' mean distance beside the cross-entropy.
        pool: how many inputs samples are drawn from (fewer where they would not fit in 512 MB).
        start: share of the pool that is left as the records' own Gaussians of the input give it, uncorrected, where
            there are such records. A correction makes inputs more typical of their class; a student also needs the
            variety that it takes away.
        past: share of the rest that was kept while the generator learnt; the others are made at the end.
    """

    iterations: int = 300
    batch: int = 320
    per_class: int = 16
    lr: float = 5e-4
    width: int = 24
    match_weight: float = 10.0
    pool: int = 30_000
    start: float = share(0.75)
    past: float = share(0.8)


class MatchedGenerator:
    """Trains the generator, remembers what it made on the way, then draws from both."""

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._config = task, config
        self.steps = config.iterations
        self._statistics = _matched(task)
        self._classes = _observed(self._statistics, task.classes)
        self._base = _Base.of(task)
        latent = max(64, self._base.rank)
        self._network = Generator(task.item_shape, task.classes, latent, config.width, task.generator)
        self._latent = latent
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=config.lr, betas=(0.5, 0.99))
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, config.lr, config.iterations + 1)
        self._bank: list[tuple[Tensor, Tensor]] = []
        self._done = 0
        self._size = max(config.batch, min(config.pool, POOL_BYTES // (4 * math.prod(task.item_shape))))
        self._plain = round(config.start * self._size) if self._base.factors is not None else 0
        batches = max(1, round(config.past * (self._size - self._plain) / config.batch))
        # The first eighth is still far from the records and is not worth remembering.
        self._keep_from = config.iterations // 8
        self._keep_every = max(1, (config.iterations - self._keep_from) // batches)
        self._pool: tuple[Tensor, Tensor] | None = None

    def advance(self) -> float:
        """One step of the generator on one batch, balanced over the classes that it holds."""
        labels = self._labels()
        self._network.train()
        inputs, excess = self._generate(labels)
        loss = self._loss(inputs, labels) + excess
        if not bool(torch.isfinite(loss)):
            raise StepError("matched-generator", "a loss that is not finite", "a number", "Lower lr.")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
        if self._done >= self._keep_from and (self._done - self._keep_from) % self._keep_every == 0:
            self._bank.append((inputs.detach(), labels))
        self._done += 1
        return float(loss.detach())

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw from the pool, without repeating an input within one call while it lasts."""
        if self._pool is None:
            self._pool = self._fill()
        inputs, labels = self._pool
        rows = torch.randperm(len(inputs), generator=self._task.generator)[:count]
        if count > len(rows):
            more = torch.randint(len(inputs), (count - len(rows),), generator=self._task.generator)
            rows = torch.cat([rows, more])
        return inputs[rows], labels[rows]

    def _fill(self) -> tuple[Tensor, Tensor]:
        """Starting points and the bank, topped up with what the generator makes now; made once, drawn from often."""
        made = list(self._bank)
        self._bank.clear()
        self._network.eval()
        with torch.no_grad():
            while sum(len(labels) for _, labels in made) < self._size - self._plain:
                labels = self._draw_labels(self._config.batch)
                made.append((self._generate(labels)[0], labels))
            if self._plain:
                labels = self._draw_labels(self._plain)
                noise = self._task.normal(self._plain, self._latent)
                made.append((self._task.clamp(self._base.draw(noise, labels)), labels))
        return torch.cat([inputs for inputs, _ in made]), torch.cat([labels for _, labels in made])

    def _draw_labels(self, count: int) -> Tensor:
        return self._classes[torch.randint(len(self._classes), (count,), generator=self._task.generator)]

    def _labels(self) -> Tensor:
        config, classes = self._config, self._classes
        present = min(len(classes), max(1, config.batch // config.per_class))
        chosen = classes[torch.randperm(len(classes), generator=self._task.generator)[:present]]
        return chosen.repeat_interleave(max(2, config.batch // present))

    def _generate(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs for the labels, and how far they overshot the range (mean square, in input deviations)."""
        noise = self._task.normal(len(labels), self._latent)
        base = self._base.draw(noise, labels)
        raw = base + self._base.scale * self._network(noise, labels, base)
        over = self._task.clamp(raw) - raw
        # Clip forwards, not backwards: a pixel that sits at the edge must still learn to leave it. What lies
        # beyond is drawn back by the excess instead, or it would drift where no gradient tells it to stop.
        return raw + over.detach(), (over / self._base.scale).square().mean()

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        wanted = [name for statistic in self._statistics for name in statistic.values]
        names = list(dict.fromkeys([*wanted, self._task.output_name]))
        values = self._task.values(inputs, names)
        matched = torch.stack([s.distance(values, labels) for s in self._statistics]).mean()
        classified = F.cross_entropy(values[self._task.output_name], labels)
        return self._config.match_weight * matched + classified


@dataclass(frozen=True, slots=True)
class _Base:
    """Where generation starts: what the records say of the input itself."""

    mean: Tensor
    factors: Tensor | None
    scale: Tensor

    @classmethod
    def of(cls, task: Task) -> _Base:
        centre, scale = task.input_scale()
        mean = centre.expand(task.item_shape).expand(task.classes, *task.item_shape)
        size = mean[0].numel()
        moments = task.records.of(task.input_name, "moments", by_class=True)
        if moments is not None and moments.features == "flattened":
            mean = moments.tensors["mean"].reshape(mean.shape)
        spectrum = task.records.of(task.input_name, "spectrum", by_class=True)
        if spectrum is None or spectrum.features != "flattened":
            return cls(mean, None, scale)
        parts = spectrum.tensors
        factors = parts["eigenvalues"].sqrt()[:, :, None] * parts["eigenvectors"]
        return cls(parts["mean"].reshape(mean.shape), factors.reshape(len(mean), -1, size), scale)

    @property
    def rank(self) -> int:
        """Latent numbers that the starting point uses."""
        return 0 if self.factors is None else self.factors.shape[1]

    def draw(self, noise: Tensor, labels: Tensor) -> Tensor:
        """``[n, *item_shape]`` a sample of each label's Gaussian, or its mean."""
        start = self.mean[labels]
        if self.factors is None:
            return start
        along = torch.einsum("nk,nkd->nd", noise[:, : self.rank], self.factors[labels])
        return start + along.reshape(start.shape)


def _matched(task: Task) -> list[Statistic]:
    """Every record that can be matched, except those over all units where the same is there for each class."""
    matchable = [s for s in task.records if s.matchable]
    by_class = {(s.values, s.kind, s.features) for s in matchable if s.by_class}
    found = [s for s in matchable if s.by_class or (s.values, s.kind, s.features) not in by_class]
    if not found:
        raise StepError(
            "records", "none", "at least one", "Use the method noise, or a bundle of the preset 'all-layers'."
        )
    return found


def _observed(statistics: list[Statistic], classes: int) -> Tensor:
    """The classes of which no record is withheld; inputs of the others cannot be made."""
    counts = [entry.tensors["count"] for entry in statistics if entry.by_class]
    if not counts:
        return torch.arange(classes)
    found = torch.nonzero((torch.stack(counts) > 0).all(0)).flatten()
    if not len(found):
        raise StepError("records", "no class that was published", "at least one", "Use the method noise.")
    return found


def build(task: Task, config: Config) -> MatchedGenerator:
    """The method for ``task``.

    Raises:
        StepError: the bundle has no records.
    """
    return MatchedGenerator(task, config)
