"""Synthetic inputs that the steps of one run share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfmeta.compress.recipe import Inputs
from dfmeta.data import feed, fitted_input, open_data
from dfmeta.pipeline.closed_form import Progress, Source
from dfmeta.pipeline.consume import chosen_method, synthesise


class SyntheticInputs:
    """Synthetic inputs: made, or read, when they are first asked for; the same ones ever after.

    Args:
        source: the bundle.
        wanted: how they are made.
        path: a file that :func:`dfmeta.pipeline.reconstruct` wrote, whose inputs are read in place of new ones.
        seed: of what is drawn.
        device: where they are made.
        progress: called with stage, steps done, steps in all, and loss.

    Attributes:
        told: the method that made them, or the file; empty before.
    """

    def __init__(
        self, source: Source, wanted: Inputs, path: str | None, seed: int, device: str, progress: Progress | None
    ) -> None:
        self._source, self._wanted, self._path = source, wanted, path
        self._seed, self._device, self._progress = seed, device, progress
        self._made: Tensor | None = None
        self.told = ""

    @property
    def count(self) -> int:
        """How many there are so far."""
        return 0 if self._made is None else len(self._made)

    @property
    def recipe(self) -> dict[str, object]:
        """Where they are from, in JSON types."""
        settings = {} if self._path is not None else dict(self._wanted.settings)
        return {"from": self.told, "count": self.count, "settings": settings}

    def __call__(self) -> Tensor:
        """``[n, ...]``, on the CPU."""
        if self._made is None:
            self._made = self._read(self._path) if self._path is not None else self._synthesised()
        return self._made

    def _synthesised(self) -> Tensor:
        wanted = self._wanted
        opened, seed, settings = self._source.opened, self._seed, dict(wanted.settings)
        self.told = method = chosen_method(opened.bundle.manifest, wanted.method or None, None)
        found, _ = synthesise(opened, method, wanted.count, seed, settings, self._progress, device=self._device)
        return found.detach().cpu()

    def _read(self, path: str) -> Tensor:
        self.told = path
        entry = self._source.opened.bundle.manifest.model.inputs[0]
        source = open_data(path)
        batches = feed(source, [fitted_input(entry, source)], 1024)
        return torch.from_numpy(np.concatenate([next(iter(batch.inputs.values())) for batch in batches]))
