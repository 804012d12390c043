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

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.records import Statistic
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._generators import Generator


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
        bank: how many past inputs are kept.
        fresh: share of samples that come from the generator itself, the rest from the bank.
    """

    iterations: int = 600
    batch: int = 320
    per_class: int = 16
    lr: float = 1e-3
    width: int = 32
    match_weight: float = 1.0
    bank: int = 40_000
    fresh: float = 0.5


class MatchedGenerator:
    """Trains the generator, remembers what it made on the way, then draws from both."""

    def __init__(self, task: Task, config: Config) -> None:
        self._task, self._config = task, config
        self.steps = config.iterations
        self._statistics = _matched(task)
        self._base = _Base.of(task)
        latent = max(64, self._base.rank)
        self._network = Generator(task.item_shape, task.classes, latent, config.width, task.generator)
        self._latent = latent
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=config.lr, betas=(0.5, 0.99))
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, config.lr, config.iterations + 1
        )
        self._bank: list[tuple[Tensor, Tensor]] = []
        self._done = 0
        batches = max(1, config.bank // config.batch)
        # The first eighth is still far from the records and is not worth remembering.
        self._keep_from = config.iterations // 8
        self._keep_every = max(1, (config.iterations - self._keep_from) // batches)

    def advance(self) -> float:
        """One step of the generator on one batch, balanced over the classes that it holds."""
        labels = self._labels()
        self._network.train()
        inputs = self._generate(labels)
        loss = self._loss(inputs, labels)
        if not bool(torch.isfinite(loss)):
            raise StepError("matched-generator", "a loss that is not finite", "a number", "Lower lr.")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        if self._done >= self._keep_from and (self._done - self._keep_from) % self._keep_every == 0:
            self._bank.append((inputs.detach(), labels))
        self._done += 1
        return float(loss.detach())

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs from the generator as it is now, mixed with some from the bank."""
        fresh = count if not self._bank else round(count * self._config.fresh)
        labels = torch.randint(self._task.classes, (fresh,), generator=self._task.generator)
        self._network.eval()
        with torch.no_grad():
            inputs = (
                self._generate(labels) if fresh else labels.new_empty((0, *self._task.item_shape)).float()
            )
        past = [self._recall() for _ in range(count - fresh)]
        if past:
            inputs = torch.cat([inputs, torch.stack([item for item, _ in past])])
            labels = torch.cat([labels, torch.stack([label for _, label in past])])
        return inputs, labels

    def _recall(self) -> tuple[Tensor, Tensor]:
        generator = self._task.generator
        inputs, labels = self._bank[int(torch.randint(len(self._bank), (), generator=generator))]
        row = int(torch.randint(len(inputs), (), generator=generator))
        return inputs[row], labels[row]

    def _labels(self) -> Tensor:
        config, task = self._config, self._task
        present = min(task.classes, max(1, config.batch // config.per_class))
        classes = torch.randperm(task.classes, generator=task.generator)[:present]
        return classes.repeat_interleave(max(2, config.batch // present))

    def _generate(self, labels: Tensor) -> Tensor:
        noise = self._task.normal(len(labels), self._latent)
        base = self._base.draw(noise, labels)
        raw = base + self._base.scale * self._network(noise, labels, base)
        # Clip forwards, not backwards: a pixel that sits at the edge must still learn to leave it.
        clipped: Tensor = raw + (self._task.clamp(raw) - raw).detach()
        return clipped

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        names = list(dict.fromkeys([s.value for s in self._statistics] + [self._task.output_name]))
        values = self._task.values(inputs, names)
        matched = torch.stack([s.distance(values[s.value], labels) for s in self._statistics]).mean()
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
    """Every record, except those over all units where the same statistic is there for each class."""
    by_class = {(s.value, s.kind, s.features) for s in task.records if s.by_class}
    found = [s for s in task.records if s.by_class or (s.value, s.kind, s.features) not in by_class]
    if not found:
        raise StepError("records", "none", "at least one", "Use the method noise, or a bundle with records.")
    return found


def build(task: Task, config: Config) -> MatchedGenerator:
    """The method for ``task``.

    Raises:
        StepError: the bundle has no records.
    """
    return MatchedGenerator(task, config)
