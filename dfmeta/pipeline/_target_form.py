"""A float graph in the form that a target reads, and whether that fits: predicted before training, made after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dfmeta.compress import quantize
from dfmeta.compress._chain import State
from dfmeta.compress._recorded_anew import PRESET, recorded
from dfmeta.export.canonical import canonicalize
from dfmeta.export.targets import Checked, Target, check
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.pipeline.closed_form import Watch
from dfmeta.pipeline.quantizing import in_form
from dfmeta.pipeline.targeting import form_for, reads_integers, settings_for
from dfmeta.records import PublishedRecords, make_plan
from dfmeta.synthesis import Task

_UNITS = 8


@dataclass(frozen=True, slots=True)
class Made:
    """One graph, ready for a target.

    Attributes:
        plain: in floating point and in canonical form.
        graph: what the target reads; the same where that is a float model.
        records: of ``plain``, for tools that quantize it themselves.
        notes: what a reader should know, in sentences.
    """

    plain: Graph
    graph: Graph
    records: PublishedRecords
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetForm:
    """What a target reads, and what there is room for.

    Attributes:
        target: its profile.
        board: one of its boards; empty for none.
        ram, flash: bytes; None for the board's, or no limit.
        fpu: whether the core has a floating-point unit; None for the board's word, or yes.
    """

    target: Target
    board: str = ""
    ram: int | None = None
    flash: int | None = None
    fpu: bool | None = None

    @property
    def asked(self) -> dict[str, object]:
        """The same in JSON types."""
        given = {name: getattr(self, name) for name in ("board", "ram", "flash", "fpu")}
        return {"target": self.target.name, **given}

    @cached_property
    def config(self) -> quantize.Config | None:
        """How it is quantized; None where a float model is read."""
        if not reads_integers(self.target):
            return None
        return quantize.settled(settings_for(self.target, quantize.Config()))

    def checked(self, graph: Graph) -> Checked:
        """A graph as it is written, held against the target."""
        return check(graph, self.target, ram=self.ram, flash=self.flash, board=self.board, fpu=self.fpu)

    def predicted(self, graph: Graph, units: Tensor) -> Checked:
        """What the target will say of a float graph once it is trained and written.

        The very graph is made, with ranges of any numbers and weights rounded to nearest: the operators, and the bytes
        of every tensor, are those that it will have.

        Args:
            graph: in floating point, with any weights.
            units: ``[n, ...]`` a few inputs.

        Raises:
            StepError, ExportError, GraphError: a graph that cannot be written for the target.
        """
        plain = canonicalize(graph, keep_names=True)
        if self.config is None:
            return self.checked(plain)
        folded = without_batch_norm(graph)
        records = PublishedRecords(recorded(folded, make_plan(folded, [PRESET], form="diagonal"), units))
        return self.checked(self._rounded(plain, records, replace(self.config, rounding="nearest"))[0])

    def made(self, graph: Graph, state: State, inputs: Tensor, watch: Watch) -> Made:
        """The graph for the target, from what is recorded of it on synthetic inputs.

        Args:
            graph: trained, in floating point.
            state: the same with the publisher's records that still hold of it; they go before those taken anew.
            inputs: ``[n, ...]`` synthetic.
            watch: called with a stage, what is done, and what there is to do.

        Raises:
            StepError, ExportError, GraphError: a graph that cannot be written for the target.
        """
        plain = canonicalize(graph, keep_names=True)
        records = state.renewed(quantize.REQUIRES, lambda: inputs, watch).records
        if self.config is None:
            return Made(plain, plain, records)
        rounded, notes = self._rounded(plain, records, self.config, watch)
        return Made(plain, rounded, records, tuple(notes))

    def _rounded(
        self, plain: Graph, records: PublishedRecords, config: quantize.Config, watch: Watch | None = None
    ) -> tuple[Graph, Sequence[str]]:
        found = quantize.run(plain, records, config, watch)
        graph, _ = in_form(found, form_for(self.target, None), config, self.target)
        return graph, quantize.notes(found.layers, config)


def any_units(task: Task) -> Tensor:
    """``[n, ...]`` inputs within their bounds, the same for one bundle: enough to see sizes, not what the data are."""
    generator = torch.Generator().manual_seed(0)
    shape = (_UNITS, *task.item_shape)
    low, high = (one.cpu() for one in (task.low, task.high))
    if bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        return low + (high - low) * torch.rand(shape, generator=generator)
    return torch.randn(shape, generator=generator)
