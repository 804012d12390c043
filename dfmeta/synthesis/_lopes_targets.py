"""What `lopes` drives its images to: sampled activations of each recorded site, and how far an image is from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from dfmeta.records import Statistic, feature_vectors
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._gaussians import ClassGaussians, Coupling

# Keeps roots smooth and quotients finite where nothing varies.
TINY = 1e-8


class Target(Protocol):
    """A site, and the activations that images of a class should have there.

    Attributes:
        statistic: the record that it was made from.
        width: how many standard normal numbers a draw takes; 0 where every image of a class has the same goal.
    """

    @property
    def statistic(self) -> Statistic: ...

    @property
    def width(self) -> int: ...

    def colour(self, white: Tensor, labels: Tensor) -> Tensor:
        """``[n, width]`` standard normal to the goals of images with these labels."""
        ...

    def error(self, value: Tensor, labels: Tensor, goal: Tensor, rectified: bool) -> Tensor:
        """``[n]`` squared error of each image in units of its class's mean variance, after a ReLU if ``rectified``."""
        ...


@dataclass(frozen=True, slots=True)
class Deviations:
    """A goal from `moments`: every feature on its own, N(mean, var) of the class."""

    statistic: Statistic

    @property
    def width(self) -> int:
        """One number for each feature."""
        return self.statistic.tensors["mean"].shape[1]

    def colour(self, white: Tensor, labels: Tensor) -> Tensor:
        """``[n, d]``."""
        parts = self.statistic.tensors
        return parts["mean"][labels] + parts["var"][labels].sqrt() * white

    def error(self, value: Tensor, labels: Tensor, goal: Tensor, rectified: bool) -> Tensor:
        """See :class:`Target`."""
        return _squared(value.flatten(1), goal, rectified) / (self.statistic.tensors["var"][labels].mean(1) + TINY)


@dataclass(frozen=True, slots=True)
class Correlated:
    """A goal from `spectrum`: features together, from the class's Gaussian.

    Attributes:
        gaussians: those of the record.
        coupled: name of a site whose goal is drawn before, and how this one's varies with it.
    """

    statistic: Statistic
    gaussians: ClassGaussians
    coupled: tuple[str, Coupling] | None = None

    @property
    def width(self) -> int:
        """One number for each feature."""
        return self.gaussians.features

    def colour(self, white: Tensor, labels: Tensor) -> Tensor:
        """``[n, d]``."""
        return self.gaussians.colour(white, labels)

    def error(self, value: Tensor, labels: Tensor, goal: Tensor, rectified: bool) -> Tensor:
        """See :class:`Target`."""
        return _squared(value.flatten(1), goal, rectified) / (self.gaussians.variance()[labels] + TINY)


@dataclass(frozen=True, slots=True)
class Channels:
    """A goal from a record whose samples are positions: mean and deviation over the positions of one image.

    Of `moments` channel by channel, of `spectrum` along each recorded direction. A record of this sort does not say
    how images differ, so all images of a class have one goal, which is neither drawn nor rectified.
    """

    statistic: Statistic
    width: int = field(default=0, init=False)

    def colour(self, white: Tensor, labels: Tensor) -> Tensor:
        """``[n, 0]``: nothing is drawn."""
        del labels
        return white

    def error(self, value: Tensor, labels: Tensor, goal: Tensor, rectified: bool) -> Tensor:
        """See :class:`Target`."""
        del goal, rectified
        parts = self.statistic.tensors
        rows, _ = feature_vectors(value, labels, "channel", self.statistic.feature_axis)
        along = rows.reshape(len(labels), -1, rows.shape[-1]) - parts["mean"][labels][:, None]
        variance = parts["var" if "var" in parts else "eigenvalues"][labels]
        if "eigenvectors" in parts:
            along = along @ parts["eigenvectors"][labels].mT
        deviation = (along.var(1, unbiased=False) + TINY).sqrt()
        error = along.mean(1).square() + (deviation - variance.sqrt()).square()
        return error.mean(1) / (variance.mean(1) + TINY)


def _squared(found: Tensor, goal: Tensor, rectified: bool) -> Tensor:
    difference = found.relu() - goal.relu() if rectified else found - goal
    return difference.square().mean(1)


def draw(task: Task, targets: Sequence[Target], labels: Tensor) -> dict[str, Tensor]:
    """Goals of all sites for one batch, by value name; those of coupled sites are drawn together."""
    white: dict[str, Tensor] = {}
    for target in targets:
        noise = task.normal(len(labels), target.width)
        if isinstance(target, Correlated) and target.coupled is not None:
            before, coupling = target.coupled
            noise = coupling.couple(white[before], noise, labels)
        white[target.statistic.value] = noise
    return {target.statistic.value: target.colour(white[target.statistic.value], labels) for target in targets}
