"""Records that say little of any one unit: clipped sums, noised once, and records derived from them.

Neighbouring data sets differ by one unit, added or removed, with its class. While gathering, each unit is scaled
down so that the root mean square of its elements at a site is at most c
(:func:`~dfmeta.records.gathered.clipped_units`). With P samples of d features a unit (P is 1 for ``flattened``, the
number of positions for ``channel``) and ``R = c * sqrt(d)`` that gives, for the samples x_p of one unit,
``mean_p |x_p|^2 <= R^2``, and so

* its mean over positions ``m = mean_p x_p`` has ``|m|_2 <= R``, by Jensen's inequality;
* its second moment ``S = mean_p x_p x_p^T`` has ``|S|_F <= trace S = mean_p |x_p|^2 <= R^2``, S being positive
  semi-definite;
* the diagonal of S, which is all that a variance needs, has ``|diag S|_2 <= |diag S|_1 = trace S <= R^2``.

Patches of a convolution overlap and meet padding. If no element is read by more than k of them and there are P, then
``mean_p |x_p|^2 <= k * elements * c^2 / P``, which takes the place of R^2, summed over the convolution's groups; k
follows from kernel, stride, dilation and padding. The form ``diagonal`` publishes diag S. The factors of ``kronecker``,
partial traces of S, are positive semi-definite with the trace of S, so that R^2 bounds each. The form ``toeplitz`` adds
up the n_l blocks of S at each lag l; by Cauchy and Schwarz such a sum divided by sqrt(n_l) is in norm at most the root
of the blocks' squares, and since no block belongs to two lags, all together have norm at most ``|S|_F <= R^2``.

Values in bins need no clipping: a unit adds P * d of them, so its vector of counts has ``|v|_2 <= |v|_1 = P * d``. The
bins are a fixed set, which the data does not choose, and each is noised, the empty ones too.

A unit adds m, S and 1 to the sums over units of its own class and nothing to those of the others: adding or removing
it moves the sums by no more than R, R^2 and 1 (P * d for bins), in all classes together. Those are the L2 sensitivities
of the Gaussian mechanism, and one class's budget is the record's (classes hold disjoint units: parallel composition).
Everything published is computed from these noised sums, which costs nothing more: means, variances, eigenpairs, the
record over all units from those of the classes, and the counts.

Each sum is noised once, however many records read it. The budget is divided equally among the sums. Sources:
:mod:`dfmeta.numerics.zcdp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from dfmeta.errors import DataError
from dfmeta.numerics.zcdp import NoiseSource, discrete_variance
from dfmeta.records.gathered import UNCLIPPED_KINDS, Clip, Gathered, limit_at
from dfmeta.records.plan import RecordPlan
from dfmeta.records.presets import PRESETS, preset_name
from dfmeta.records.privacy_ledger import Entry, ledger
from dfmeta.records.privacy_mechanisms import MECHANISMS, Sum, sum_of

_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class DifferentialPrivacy:
    """What the records may tell of one unit.

    Attributes:
        rho: the budget of all records together, in zCDP; above 0.
        clip: the largest root mean square of a unit's elements at a site: one number, or one for each site by label.
            Choose it without looking at the data. :class:`~dfmeta.records.gathered.Gathered` must have applied it.
        batch_size: units in a forward pass, as configured: the largest batch seen would give away how many units
            there are in a small data set.
        seed: of the noise, for tests and for nothing else; None draws it from the operating system.

    Raises:
        DataError: no clipping norm, or a budget that is not above 0.
    """

    rho: float
    clip: Clip | None
    batch_size: int
    seed: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (0 < self.rho < math.inf):
            raise DataError("--dp-rho", str(self.rho), "a finite number above 0", "Try 0.5; smaller is more private.")
        if self.clip is None:
            raise DataError(
                "--dp-rho",
                "no clipping norm",
                "one: without it a single unit could move a mean as far as it likes",
                "Give --dp-clip, the largest root mean square that a unit's activations may have at a site, for all "
                "sites or for each. Choose it without this data, such as from public data: what it cuts off is lost.",
            )


@dataclass(frozen=True, slots=True)
class Noised:
    """What :func:`noised` made.

    Attributes:
        gathered: statistics of the same form, noised, with noised counts; they serve publication and nothing else.
        ledger: what was spent on what, in JSON types.
        left_out: records without a mechanism, as ``kind at site``.
    """

    gathered: Gathered
    ledger: dict[str, Any]
    left_out: tuple[str, ...]


def private_plan(
    plan: Sequence[RecordPlan], presets: Sequence[str] = ()
) -> tuple[tuple[RecordPlan, ...], tuple[str, ...]]:
    """The part of a plan that can be noised, and the names of the rest.

    Args:
        plan: what was asked for.
        presets: the presets that were asked for by name.

    Returns:
        Entries with a mechanism, and ``kind at site`` of each that has none.

    Raises:
        DataError: a preset of which nothing would be left, or a plan of which nothing would.
    """
    for preset in presets:
        kinds = sorted({choice.kind for choice in PRESETS[preset_name(preset)]})
        if not any(kind in MECHANISMS for kind in kinds):
            _refuse(f"preset {preset!r}", ", ".join(kinds))
    kept = tuple(entry for entry in plan if _can_be_noised(entry))
    left_out = tuple(_named(entry) for entry in plan if not _can_be_noised(entry))
    if not kept:
        _refuse("records", ", ".join(left_out) or "an empty plan")
    return kept, left_out


def require_whole(limit: int | None) -> None:
    """Refuse noise for a draw of the data.

    Noise hides one unit of what was recorded. A draw with a seed that is known falls out otherwise for many units where
    one is added to the data, and then more than one has to be hidden.

    Raises:
        DataError: there is a limit.
    """
    if limit is not None:
        raise DataError(
            "--dp-rho",
            f"--limit {limit}",
            "all units of the data",
            "Noise hides one unit of what was recorded, not of what it was drawn from. Cut the data beforehand.",
        )


def noised(gathered: Gathered, privacy: DifferentialPrivacy) -> Noised:
    """The same statistics with noise, each sum once. What was gathered stays as it is.

    Raises:
        DataError: units that were not clipped as ``privacy`` says; or nothing that can be noised.
    """
    clip = gathered.clip
    if clip is None or clip != privacy.clip:
        found = "none" if clip is None else str(clip)
        fix = "Gather with the clipping norm of the privacy that is asked for."
        raise DataError("clipping norm of what was gathered", found, str(privacy.clip), fix)
    kept, left_out = private_plan(gathered.plan)
    readers = _readers(gathered)
    rho = privacy.rho / (1 + len(readers))
    source = NoiseSource(privacy.seed)
    units = gathered.units.numpy() + source.discrete_gaussian(tuple(gathered.units.shape), discrete_variance(1, rho))
    sums: dict[Sum, NDArray[np.float64]] = {}
    spent = [Entry("unit-count", rho, 1.0, "discrete-gaussian", by_class=gathered.classes is not None)]
    for key, [(entry, accumulator), *others] in readers.items():
        limit = limit_at(entry.site, clip)
        exact = MECHANISMS[entry.kind].exact(entry, accumulator.state(), key.quantity)
        sensitivity = key.sensitivity(limit)
        sums[key] = key.noised(exact, sensitivity, rho, source)
        kinds = tuple(dict.fromkeys(reader.kind for reader, _ in [(entry, accumulator), *others]))
        clipped = limit if entry.kind not in UNCLIPPED_KINDS else None
        place = (key.site.id, key.features, key.by_class)
        spent.append(Entry(key.quantity, rho, sensitivity, key.noise, *place, kinds, clipped))
    result = Gathered(kept, classes=gathered.classes, memory_limit=_NO_LIMIT, clip=clip)
    result.units = torch.from_numpy(units.clip(min=0))
    result.largest_batch = privacy.batch_size
    _restore(result, sums)
    return Noised(result, ledger(privacy.rho, spent, left_out), left_out)


def _readers(gathered: Gathered) -> dict[Sum, list[tuple[RecordPlan, Any]]]:
    """Each sum that is needed, with the records that read it; the first of them holds it whole."""
    found: dict[Sum, list[tuple[RecordPlan, Any]]] = {}
    for entry, accumulator in zip(gathered.plan, gathered.accumulators, strict=True):
        if _can_be_noised(entry):
            for quantity in MECHANISMS[entry.kind].quantities(entry):
                found.setdefault(sum_of(entry, quantity), []).append((entry, accumulator))
    for key in [key for key in found if key.whole != key and key.whole in found]:
        found[key.whole] += found.pop(key)
    return found


def _restore(result: Gathered, sums: Mapping[Sum, NDArray[np.float64]]) -> None:
    """Give each accumulator the state that the noised sums imply."""
    for entry, accumulator in zip(result.plan, result.accumulators, strict=True):
        mechanism = MECHANISMS[entry.kind]
        units = result.units if entry.gathered_by_class else result.units.sum()[None]
        found = {name: _part(sums, sum_of(entry, name)) for name in mechanism.quantities(entry)}
        accumulator.restore(mechanism.state(entry, units.numpy(), found))


def _part(sums: Mapping[Sum, NDArray[np.float64]], key: Sum) -> NDArray[np.float64]:
    return sums[key] if key in sums else np.diagonal(sums[key.whole], axis1=-2, axis2=-1)


def _can_be_noised(entry: RecordPlan) -> bool:
    # What a sketch holds of its samples is no sum over units; and a bound needs a size that all units share.
    sketched = "sketch" in entry.configuration
    fixed = all(isinstance(size, int) for size in entry.site.shape[1:])
    return entry.kind in MECHANISMS and entry.paired is None and not sketched and fixed


def _named(entry: RecordPlan) -> str:
    pair = f" and {entry.paired.label!r}" if entry.paired is not None else ""
    return f"{entry.kind} at {entry.site.label!r}{pair}"


def _refuse(where: str, kinds: str) -> NoReturn:
    raise DataError(
        f"{where}, --dp-rho",
        f"only {kinds}, which no noise mechanism covers",
        f"a kind that one does: {', '.join(sorted(MECHANISMS))}",
        "Leave it out, or record without --dp-rho.",
    )
