"""Which records each variant of `lopes` goes by, and that they are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dfmeta.errors import StepError
from dfmeta.graph import weight_sites
from dfmeta.records import Statistic
from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._gaussians import ClassGaussians, Coupling
from dfmeta.synthesis._lopes_targets import Channels, Correlated, Deviations, Target


@dataclass(frozen=True, slots=True)
class Goals:
    """What the images of a task are driven to.

    Attributes:
        targets: what each image is, site by site.
        matched: records that the images of a batch are to have together.
        classes: the classes that no record withholds; the others cannot be reconstructed.
    """

    targets: tuple[Target, ...]
    matched: tuple[Statistic, ...]
    classes: Tensor

    @classmethod
    def of(cls, task: Task, variant: str) -> Goals:
        """Those of a variant.

        Raises:
            StepError: records that it needs are not there, or every class is withheld.
        """
        matched: tuple[Statistic, ...] = ()
        if variant == "top-layer":
            targets: tuple[Target, ...] = (_top(task),)
        elif variant.startswith("all-layers"):
            targets = tuple(_alone(entry) for entry in _sites(task, "moments", "all-layers"))
        else:
            spectra = _sites(task, "spectrum", variant)
            pairs = _pairs(task, spectra) if variant == "spectral-pairs" else ()
            targets = _correlated(spectra, pairs)
            matched = (*spectra, *pairs)
        return cls(targets, matched, _observed([*(target.statistic for target in targets), *matched]))

    @property
    def values(self) -> list[str]:
        """Names of all values that the goals are about."""
        names = [target.statistic.value for target in self.targets]
        return list(dict.fromkeys([*names, *(name for entry in self.matched for name in entry.values)]))


def _top(task: Task) -> Target:
    """The paper stores the covariance of the logits, few as they are."""
    spectrum = task.records.of(task.output_name, "spectrum", by_class=True)
    if spectrum is not None and spectrum.features == "flattened":
        return Correlated(spectrum, ClassGaussians.of(spectrum))
    return _alone(task.records.need(task.output_name, "moments", by_class=True, preset="top-layer"))


def _alone(statistic: Statistic) -> Target:
    return Channels(statistic) if statistic.features == "channel" else Deviations(statistic)


def _sites(task: Task, kind: str, preset: str) -> tuple[Statistic, ...]:
    """The records of that kind of each class, one a site; the input is left out, as in the paper."""
    found = {
        entry.value: entry
        for entry in reversed(task.records.statistics)
        if entry.kind == kind and entry.by_class and entry.value != task.input_name
    }
    hidden = {site.value for site in weight_sites(task.teacher.graph)} - {task.output_name}
    if not found or (hidden and not hidden & found.keys()):
        where = "records of hidden sites" if hidden else f"records of {task.output_name!r}"
        raise _missing(where, f"no {kind!r} of each class", preset)
    # Targets are drawn in the order of the data, which is that of the graph's nodes.
    order = {name: place for place, name in enumerate(_topological(task))}
    return tuple(sorted(found.values(), key=lambda entry: order[entry.value]))


def _topological(task: Task) -> Iterable[str]:
    return (name for node in task.teacher.graph.model.graph.node for name in node.output)


def _pairs(task: Task, spectra: Iterable[Statistic]) -> tuple[Statistic, ...]:
    known = {entry.value for entry in spectra}
    found = tuple(
        entry
        for entry in task.records
        if entry.kind == "cross-spectrum" and entry.by_class and known.issuperset(entry.values)
    )
    if not found:
        raise _missing("records of pairs of sites", "no 'cross-spectrum' of each class", "spectral-pairs")
    return found


def _correlated(spectra: Iterable[Statistic], pairs: Iterable[Statistic]) -> tuple[Target, ...]:
    """One target a site; each is coupled to one site before it, the first of which a pair was recorded.

    Where several sites lead to one, as around a residual block, the others are left to what the batch is matched to:
    and so are pairs with a site recorded by channel, of which there is no Gaussian of whole images.
    """
    gaussians: dict[str, ClassGaussians] = {}
    targets: list[Target] = []
    for entry in spectra:
        if entry.features == "channel":
            targets.append(Channels(entry))
            continue
        gaussians[entry.value] = ClassGaussians.of(entry)
        targets.append(Correlated(entry, gaussians[entry.value], _coupled(entry.value, pairs, gaussians)))
    return tuple(targets)


def _coupled(
    name: str, pairs: Iterable[Statistic], gaussians: Mapping[str, ClassGaussians]
) -> tuple[str, Coupling] | None:
    for pair in pairs:
        if pair.paired_value == name and pair.value in gaussians:
            return pair.value, Coupling.of(pair, gaussians[pair.value], gaussians[name])
    return None


def _observed(statistics: Iterable[Statistic]) -> Tensor:
    counts = torch.stack([entry.tensors["count"] for entry in statistics])
    found = torch.nonzero((counts > 0).all(0)).flatten()
    if not len(found):
        raise StepError("records", "no class that was published", "at least one", "Use the method noise.")
    return found


def _missing(where: str, found: str, preset: str) -> StepError:
    fix = f"Use a method that does without it, or a bundle recorded with the preset {preset!r}."
    return StepError(where, found, "one", fix)
