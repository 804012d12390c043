"""``scaled:0.5``: the teacher's own graph at a fraction of its width, with weights from the teacher.

In every group of channels that may be cut, the fraction of them that serves best stays: they are taken away one by one,
always that whose loss the layers that read it can best make up for, given the recorded second moments of their inputs
(preset ``calibration``). Then those layers' weights are refitted to the channels that are left by least squares
(:mod:`dfmeta.numerics.least_squares`). Where no such record is there, or a diagonal one, channels are ranked by their
share of the reading weights' energy and nothing is refitted. Groups are cut one after the other, with the teacher's
records as they are (:mod:`dfmeta.students._scaling`).
"""

from __future__ import annotations

import torch

from dfmeta.errors import StepError
from dfmeta.graph import TorchGraph
from dfmeta.graph.channels import channel_groups
from dfmeta.graph.narrow import kept_places
from dfmeta.students._origin import Origin
from dfmeta.students._scaling import Narrowing, widths

EXAMPLE = "scaled:0.5"


def derive(origin: Origin, variant: str, generator: torch.Generator) -> TorchGraph:
    """Make the student.

    Args:
        origin: the teacher and its records.
        variant: the fraction as text, above 0 and up to 1: ``0.5`` or ``2/3``.
        generator: not drawn from.

    Returns:
        A trainable graph whose BatchNormalization learns in ``train()`` mode. The same inputs and outputs as the
        teacher; each group of channels rounded up to at least one.

    Raises:
        StepError: another text, or a teacher without channels that may be cut; the text says what keeps them.
    """
    del generator
    fraction = _fraction(variant)
    kept = widths(origin.graph, fraction)
    if not kept:
        raise StepError(f"student 'scaled:{variant}'", _reasons(origin), "channels that may be cut", _ADVICE)
    narrowing = Narrowing.of(origin.graph, origin.records)
    for group, keep in kept.items():
        narrowing.cut(group, keep)
    student = TorchGraph(narrowing.finished(), trainable=True, batch_norm="train")
    places = kept_places(narrowing.graph, narrowing.kept)
    student.follows = {name: torch.from_numpy(found) for name, found in places.items()}
    return student


_ADVICE = "Use a student of its own, such as one of `dfmeta.students.names()`."


def _fraction(variant: str) -> float:
    above, slash, below = variant.partition("/")
    try:
        fraction = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise StepError(
            f"student 'scaled:{variant}'",
            f"fraction {variant!r}",
            "a number above 0 and up to 1, such as scaled:0.5 or scaled:2/3",
        )
    return fraction


def _reasons(origin: Origin) -> str:
    found = [f"{group.id}: {group.fixed or 'one channel'}" for group in channel_groups(origin.graph)]
    return f"nothing to narrow ({'; '.join(found[:4]) or 'no weights that make channels'})"
