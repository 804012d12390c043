"""Second moments that other tools recorded, and the records that they become beside a model in ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfmeta.errors import DataError
from dfmeta.graph import Graph
from dfmeta.graph.operator_inputs import OperatorInput, operator_inputs
from dfmeta.records.plan import RecordPlan
from dfmeta.records.presets import make_plan
from dfmeta.records.publication import Recording, Taken

Array = NDArray[np.float64]

# Tools sum in float32, in an order of their own: two files of one pass agree to about this.
AGREEMENT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class ForeignMoment:
    """What a file says of one matrix product's input x.

    Attributes:
        name: what the file calls it.
        where: the file and the name, for messages.
        count: samples that went in; 0 for "not observed", and everything else is 0 then.
        diagonal: ``[d]`` E[x^2].
        mean: ``[d]`` E[x]; None where the file does not say.
        matrix: ``[d(d+1)/2]`` E[x x^T] as a packed lower triangle; None where the file has the diagonal alone.
    """

    name: str
    where: str
    count: int
    diagonal: Array
    mean: Array | None = None
    matrix: NDArray[np.float32] | None = None

    @property
    def features(self) -> int:
        """The length of x."""
        return len(self.diagonal)

    @property
    def form(self) -> str:
        """Of the record that it becomes."""
        return "diagonal" if self.matrix is None else "full"


@dataclass(frozen=True, slots=True, eq=False)
class ForeignFile:
    """What one or several files of one pass hold.

    Attributes:
        format: ``imatrix`` or ``flat-hessian``.
        moments: all of them.
        unit: what the files count.
        units: how many of these went in.
        sources: what they say of their data.
        software: name and version of what wrote them, as far as is known.
    """

    format: str
    moments: tuple[ForeignMoment, ...]
    unit: str
    units: int
    sources: tuple[str, ...]
    software: tuple[str, str]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry of a file that became no record, or an operator without one.

    Attributes:
        name: of the entry, or label of the operator.
        reason: why.
    """

    name: str
    reason: str


def require_moment(where: str, count: int, mean: Array | None, diagonal: Array) -> None:
    """Refuse numbers that are no mean and E[x^2] of anything.

    Raises:
        DataError: numbers that are not finite, below 0, or a mean that is too large for its square.
    """
    given = [diagonal] if mean is None else [diagonal, mean]
    if not all(
        np.isfinite(values).all() and np.abs(values).max(initial=0) <= np.finfo(np.float32).max for values in given
    ):
        raise DataError(where, "NaN, an infinity or a number beyond float32", "finite numbers", "Record it again.")
    if (diagonal < 0).any():
        raise DataError(where, f"a mean square of {diagonal.min():g}", "none below 0", "Record it again.")
    if count and mean is not None and (np.square(mean) > diagonal * (1 + AGREEMENT) + 1e-30).any():
        raise DataError(
            where, "a mean whose square is above the mean square", "moments of one thing", "Record it again."
        )


def site_plans(graph: Graph, form: str) -> tuple[tuple[OperatorInput, RecordPlan | None], ...]:
    """Every weight operator, and the record of its input that a bundle would hold; None where there is none."""
    plans = [entry for entry in make_plan(graph, ["calibration"], form=form) if entry.kind == "second-moment"]
    return tuple((read, next((one for one in plans if _is_of(one, read)), None)) for read in operator_inputs(graph))


def _is_of(plan: RecordPlan, read: OperatorInput) -> bool:
    if (plan.site.value, plan.site.feature_axis) != (read.value, read.feature_axis):
        return False
    window = read.window
    if window is None:
        return "kernel" not in plan.configuration
    expected = {
        "kernel": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "pads": [*window.before, *window.after],
        "groups": read.groups,
    }
    return all(plan.configuration.get(key) == value for key, value in expected.items())


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """The recording that foreign moments became.

    Attributes:
        recording: of the graph's own sites.
        used: name of an entry to labels of the operators that read what it speaks of.
        left_out: entries that fit no operator.
        uncovered: operators without a record.
    """

    recording: Recording
    used: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]
    uncovered: tuple[LeftOut, ...]


def assign(
    graph: Graph,
    file: ForeignFile,
    matched: Mapping[str, Sequence[OperatorInput]],
    unmatched: Sequence[LeftOut],
    *,
    min_units: int,
    strict: bool,
) -> Assigned:
    """Records of a graph from the entries of a file.

    Args:
        graph: the model.
        file: what was read.
        matched: name of an entry to the operators that it speaks of.
        unmatched: entries of which that is not known.
        min_units: least units behind a record.
        strict: an entry that does not fit its operator is an error, and not left out.

    Raises:
        DataError: nothing fits, too few units, or two entries that say different things of one value.
    """
    if file.units < min_units:
        fix = f"Take it over more data, or lower --min-units if so few {file.unit}s may be published."
        raise DataError(file.moments[0].where, f"{file.units} {file.unit}s", f"at least {min_units}", fix)
    form = file.moments[0].form
    plans = dict(site_plans(graph, form))
    moments = {moment.name: moment for moment in file.moments}
    chosen: dict[tuple[object, ...], tuple[RecordPlan, ForeignMoment]] = {}
    used: dict[str, tuple[str, ...]] = {}
    left_out = list(unmatched)
    for name, reads in matched.items():
        moment, fitting = moments[name], []
        for read in reads:
            plan = plans[read]
            reason = _misfit(read, plan, moment)
            if reason or plan is None:
                _refuse(moment, reason) if strict else left_out.append(LeftOut(name, reason))
                continue
            earlier = chosen.setdefault(plan.identity, (plan, moment))[1]
            _require_same(earlier, moment, read)
            fitting.append(read.label)
        if fitting:
            used[name] = tuple(fitting)
    if not chosen:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in left_out[:5])
        fix = "Say with --map which entry belongs to which weight."
        raise DataError(file.moments[0].where, f"no entry of a weight of {graph.where} ({reasons})", "one or more", fix)
    taken = tuple(_taken(plan, moment, file.units) for plan, moment in chosen.values())
    sites = tuple({one.plan.site.id: one.plan.site for one in taken}.values())
    bare = [
        LeftOut(read.label, read.left_out or "no entry of the file speaks of its input")
        for read, plan in plans.items()
        if plan is None or plan.identity not in chosen
    ]
    recording = Recording(sites, taken, file.units, 1, min_units, "none")
    return Assigned(recording, used, tuple(left_out), tuple(bare))


def _refuse(moment: ForeignMoment, reason: str) -> None:
    raise DataError(moment.where, reason, "an entry that fits the weight that --map gives it", "Correct the map.")


def _misfit(read: OperatorInput, plan: RecordPlan | None, moment: ForeignMoment) -> str:
    """Why an entry cannot be the record of an operator's input; empty where it can."""
    if plan is None:
        return f"{read.label} has no input to record ({read.left_out or 'the batch is not its first axis'})"
    if read.groups != 1:
        return f"{read.label} is a convolution of {read.groups} groups"
    if plan.feature_count != moment.features:
        return f"{moment.features} features, and {read.label} reads {plan.feature_count}"
    return ""


def _require_same(one: ForeignMoment, other: ForeignMoment, read: OperatorInput) -> None:
    if one is other:
        return
    gap = np.abs(one.diagonal - other.diagonal).max(initial=0)
    if one.count != other.count or gap > AGREEMENT * one.diagonal.max(initial=0):
        raise DataError(
            other.where,
            f"other numbers than {one.name!r} has, and both speak of {read.value!r}",
            "the same: weights that read one value share its record",
            "One of the two is another layer's: correct the names with --map.",
        )


def _taken(plan: RecordPlan, moment: ForeignMoment, units: int) -> Taken:
    lead = (1,) if "kernel" in plan.configuration else ()
    mean = np.zeros(moment.features) if moment.mean is None else moment.mean
    tensors: dict[str, np.ndarray] = {"count": np.asarray(moment.count, np.int64)}
    tensors["mean"] = mean.astype(np.float32).reshape(*lead, -1)
    if moment.matrix is None:
        tensors["diagonal"] = moment.diagonal.astype(np.float32).reshape(*lead, -1)
    else:
        tensors["matrix"] = moment.matrix.reshape(*lead, -1)
    if moment.mean is not None:
        return Taken(plan, False, tensors, units, moment.count)
    # Zeros are no claim then: who corrects biases by them changes nothing.
    configuration = {**plan.configuration, "mean_observed": False}
    told = RecordPlan(plan.site, plan.kind, False, plan.features, configuration, None, False)
    return Taken(told, False, tensors, units, moment.count)
