"""From a bundle alone to a graph whose weight operators are chains of smaller ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from dfmeta.compress import factorize as step
from dfmeta.pipeline.closed_form import Progress, Written, finish, open_source, stages

Config = step.Config


@dataclass(frozen=True, slots=True)
class Factorized:
    """What :func:`factorize` wrote.

    Attributes:
        written: the file, its costs and the teacher's, and what was measured.
        config: the settings.
        parameters, parameters_before: elements of the operators' weights, each weight once.
        operators: what became of each operator, in the graph's order.
        left: label of each operator that has no weight of its own to factorise, and why.
    """

    written: Written
    config: step.Config
    parameters: int
    parameters_before: int
    operators: tuple[step.FactorizedOperator, ...]
    left: tuple[tuple[str, str], ...]

    @property
    def forms(self) -> dict[str, int]:
        """How many operators took each form, the commonest first."""
        return dict(Counter(operator.form for operator in self.operators).most_common())


def factorize(
    bundle: str | Path,
    out: str | Path,
    *,
    config: step.Config | None = None,
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factorized:
    """Factorise a bundle's graph by its records and write it as ONNX, or write nothing.

    Args:
        bundle: its folder; of the data only its records are looked at.
        out: ONNX file to write; must not exist.
        config: settings; by default three quarters of the weights' elements are left.
        data: measure on it (what ``--data`` takes); changes nothing in the file.
        limit: on that many units of it, drawn with ``seed``.
        seed: of ``limit``; nothing else is random.
        progress: called with stage, steps done, steps in all, and 0.

    Raises:
        OutputExists: ``out`` is taken.
        DataError: settings out of range.
        StepError: records that are missing, or a budget that no ranks meet.
        BundleError, GraphError, ExportError, UnknownName: see :mod:`dfmeta.errors`.
    """
    config = config or step.Config()
    step.check(config)
    source = open_source(bundle, out)
    found = step.run(source.graph, source.records, config, stages(progress))
    recipe = {"step": "factorize", **asdict(config)}
    written = finish(source, found.graph, out, recipe, data=data, limit=limit, seed=seed, progress=progress)
    sizes = found.parameters, found.parameters_before
    return Factorized(written, config, *sizes, found.operators, found.left)
